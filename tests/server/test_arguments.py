"""ServerConfig -> arguments and environment of vLLM."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import IDENTITY
from tunewright_api.engine import Quantization
from tunewright_api.names import ExitCode
from tunewright_api.server_config import ServerConfig
from tunewright_server.arguments import build_arguments, build_environment
from tunewright_server.config import check_device, check_engine
from tunewright_server.failures import ServerError

MODEL = Path("/mnt/claims/models/demo/model")
CACHE = Path("/tmp/vllm-cache")

OURS = [
    "--model", "/mnt/claims/models/demo/model",
    "--served-model-name", "demo",
    "--host", "0.0.0.0",
    "--port", "8000",
    "--middleware", "tunewright_server.middleware.AccessMiddleware",
    "--shutdown-timeout", "3",
    "--disable-fastapi-docs",
    "--disable-access-log-for-endpoints", "/health,/metrics",
    "--no-enable-log-requests",
]  # fmt: skip


def config(**fields: Any) -> ServerConfig:
    """A configuration as the operator writes it."""
    model = {"artifact": "/mnt/claims/models/demo", "digest": "sha256:" + "a" * 64, "servedName": "demo"}
    return ServerConfig.model_validate({"model": model, "identity": IDENTITY} | fields)


def gpus(utilization: float, tensor: int, pipeline: int) -> list[str]:
    """What a GPU needs."""
    return [
        "--gpu-memory-utilization", str(utilization),
        "--tensor-parallel-size", str(tensor),
        "--pipeline-parallel-size", str(pipeline),
    ]  # fmt: skip


CPU = ["--enforce-eager"]
AUTO = ["--dtype", "auto"]

ARGUMENTS = [
    pytest.param(config(), [*OURS, *AUTO, *CPU], id="a CPU with all defaults"),
    pytest.param(
        config(engine={"dtype": "BFloat16", "maxModelLen": 2048}),
        [*OURS, "--dtype", "bfloat16", "--max-model-len", "2048", *CPU],
        id="a CPU with a shorter context",
    ),
    pytest.param(config(gpus=1), [*OURS, *AUTO, *gpus(0.9, 1, 1)], id="one GPU"),
    pytest.param(
        config(
            gpus=8,
            engine={
                "dtype": "Float16",
                "quantization": "CompressedTensors",
                "gpuMemoryUtilization": 0.85,
                "tensorParallelSize": 4,
                "pipelineParallelSize": 2,
                "maxConcurrency": 64,
                "chunkedPrefill": True,
                "prefixCaching": False,
            },
        ),
        [
            *OURS,
            *("--dtype", "float16", "--quantization", "compressed-tensors", "--max-num-seqs", "64"),
            *("--enable-chunked-prefill", "--no-enable-prefix-caching"),
            *gpus(0.85, 4, 2),
        ],
        id="eight GPUs with everything set",
    ),
    pytest.param(
        config(sampling={"temperature": 0, "maxTokens": 64}),
        [*OURS, *AUTO, "--override-generation-config", '{"temperature": 0.0, "max_new_tokens": 64}', *CPU],
        id="default sampling",
    ),
    pytest.param(
        config(sampling={"maxTokens": 64}),
        [*OURS, *AUTO, "--override-generation-config", '{"max_new_tokens": 64}', *CPU],
        id="only the length of answers",
    ),
    pytest.param(config(sampling={}), [*OURS, *AUTO, *CPU], id="sampling that says nothing"),
    pytest.param(
        config(engine={"extraArgs": ["--seed=7", "--port=9"]}),
        ["--seed=7", "--port=9", *OURS, *AUTO, *CPU],
        id="extra arguments come first, so that ours hold",
    ),
]


@pytest.mark.parametrize(("given", "want"), ARGUMENTS)
def test_arguments(given: ServerConfig, want: list[str]) -> None:
    assert build_arguments(given, MODEL, engine_drain=2.5) == want


@pytest.mark.parametrize("quantization", list(Quantization))
def test_every_quantization_has_a_name_in_vllm(quantization: Quantization) -> None:
    given = config(gpus=1, engine={"quantization": quantization})
    assert "--quantization" in build_arguments(given, MODEL, engine_drain=2.5)


COMMON = {
    "VLLM_CACHE_ROOT": "/tmp/vllm-cache",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "PYTHONUNBUFFERED": "1",
}
ON_CPU = COMMON | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "3"}

ENVIRONMENTS = [
    pytest.param(config(), {}, ON_CPU, id="a CPU"),
    pytest.param(config(gpus=1), {}, COMMON, id="a GPU keeps vLLM's own process layout"),
    pytest.param(
        config(engine={"cpuKVCacheGiB": 4}),
        {"OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": "/cache", "PATH": "/bin"},
        ON_CPU | {"VLLM_CPU_KVCACHE_SPACE": "4", "OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": "/cache", "PATH": "/bin"},
        id="what was set for the container stays",
    ),
    pytest.param(
        config(gpus=1),
        {
            "VLLM_USE_RUST_FRONTEND": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_API_KEY": "secret",
            "PROMETHEUS_MULTIPROC_DIR": "/tmp/metrics",
            "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE": "x.py:f",
            "SAGEMAKER_MODEL_PATH": "/tmp",
            "HF_HUB_OFFLINE": "0",
            "VLLM_NO_USAGE_STATS": "0",
        },
        COMMON,
        id="back doors are closed and the network stays off",
    ),
]


@pytest.mark.parametrize(("given", "inherited", "want"), ENVIRONMENTS)
def test_environment(given: ServerConfig, inherited: dict[str, str], want: dict[str, str]) -> None:
    assert build_environment(given, inherited, cpus=4, cache=CACHE) == want


def test_one_cpu_still_has_a_thread() -> None:
    assert build_environment(config(), {}, cpus=1, cache=CACHE)["OMP_NUM_THREADS"] == "1"


REFUSED = [
    pytest.param(config(gpus=4), "from the 4 GPUs of this pod: make the product 4", id="idle GPUs"),
    pytest.param(
        config(gpus=4, engine={"tensorParallelSize": 4, "pipelineParallelSize": 2}),
        "engine.tensorParallelSize 4 times engine.pipelineParallelSize 2 differs",
        id="more than the pod's GPUs",
    ),
    pytest.param(
        config(engine={"tensorParallelSize": 2}), "from the 0 GPUs of this pod: make the product 1", id="no GPU"
    ),
    pytest.param(config(port=9000, healthPort=9000), "different ports", id="one port for two servers"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_contradictions_are_refused(given: ServerConfig, message: str) -> None:
    with pytest.raises(ServerError, match=message) as caught:
        check_engine(given)
    assert caught.value.code is ExitCode.INVALID_CONFIG


def test_an_image_for_cpus_is_refused_in_a_pod_with_gpus() -> None:
    with pytest.raises(ServerError, match="this pod has 2 GPUs, but the server image was built for CPUs") as caught:
        check_device(config(gpus=2), {"TUNEWRIGHT_ACCELERATOR": "cpu"})
    assert caught.value.code is ExitCode.INVALID_CONFIG


@pytest.mark.parametrize(
    ("count", "environment"),
    [
        (0, {"TUNEWRIGHT_ACCELERATOR": "cpu"}),
        (0, {"TUNEWRIGHT_ACCELERATOR": "cuda"}),
        (2, {}),
        (2, {"TUNEWRIGHT_ACCELERATOR": "cuda"}),
    ],
)
def test_an_image_that_fits_is_taken(count: int, environment: dict[str, str]) -> None:
    check_device(config(gpus=count), environment)
