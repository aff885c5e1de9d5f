"""ServerConfig -> arguments and environment of vLLM."""

from pathlib import Path
from typing import Any

import pytest

from tunewright_api.names import ExitCode
from tunewright_api.server_config import ServerConfig
from tunewright_server.arguments import build_arguments, build_environment
from tunewright_server.config import check_engine
from tunewright_server.failures import ServerError

MODEL = Path("/mnt/claims/models/demo/model")
CACHE = Path("/tmp/vllm-cache")

ALWAYS = [
    "--model", "/mnt/claims/models/demo/model",
    "--served-model-name", "demo",
    "--host", "0.0.0.0",
    "--port", "8000",
]  # fmt: skip
CLOSED = [
    "--shutdown-timeout", "3",
    "--disable-fastapi-docs",
    "--disable-access-log-for-endpoints", "/health,/metrics",
    "--no-enable-log-requests",
]  # fmt: skip


def config(**fields: Any) -> ServerConfig:
    """A configuration as the operator writes it."""
    model = {"artifact": "/mnt/claims/models/demo", "digest": "sha256:" + "a" * 64, "servedName": "demo"}
    return ServerConfig.model_validate({"model": model} | fields)


ARGUMENTS = [
    pytest.param(config(), [*ALWAYS, "--dtype", "auto", *CLOSED, "--enforce-eager"], id="a CPU with all defaults"),
    pytest.param(
        config(engine={"dtype": "BFloat16", "maxModelLen": 2048}),
        [*ALWAYS, "--dtype", "bfloat16", *CLOSED, "--max-model-len", "2048", "--enforce-eager"],
        id="a CPU with everything set",
    ),
    pytest.param(
        config(gpus=1),
        [*ALWAYS, "--dtype", "auto", *CLOSED, "--gpu-memory-utilization", "0.9", "--tensor-parallel-size", "1"],
        id="one GPU",
    ),
    pytest.param(
        config(gpus=8, engine={"dtype": "Float16", "gpuMemoryUtilization": 0.85, "tensorParallelSize": 8}),
        [*ALWAYS, "--dtype", "float16", *CLOSED, "--gpu-memory-utilization", "0.85", "--tensor-parallel-size", "8"],
        id="eight GPUs",
    ),
]


@pytest.mark.parametrize(("given", "want"), ARGUMENTS)
def test_arguments(given: ServerConfig, want: list[str]) -> None:
    assert build_arguments(given, MODEL, engine_drain=2.5) == want


COMMON = {
    "VLLM_CACHE_ROOT": "/tmp/vllm-cache",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "PYTHONUNBUFFERED": "1",
}
CPU = COMMON | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "3"}

ENVIRONMENTS = [
    pytest.param(config(), {}, CPU, id="a CPU"),
    pytest.param(config(gpus=1), {}, COMMON, id="a GPU keeps vLLM's own process layout"),
    pytest.param(
        config(engine={"cpuKVCacheGiB": 4}),
        {"OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": "/cache", "PATH": "/bin"},
        CPU | {"VLLM_CPU_KVCACHE_SPACE": "4", "OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": "/cache", "PATH": "/bin"},
        id="what was set for the container stays",
    ),
    pytest.param(
        config(gpus=1),
        {
            "VLLM_USE_RUST_FRONTEND": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
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
    pytest.param(config(gpus=4), "set engine.tensorParallelSize to 4", id="idle GPUs"),
    pytest.param(config(engine={"tensorParallelSize": 2}), "set engine.tensorParallelSize to 1", id="no GPU"),
    pytest.param(config(port=9000, healthPort=9000), "different ports", id="one port for two servers"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_contradictions_are_refused(given: ServerConfig, message: str) -> None:
    with pytest.raises(ServerError, match=message) as caught:
        check_engine(given)
    assert caught.value.code is ExitCode.INVALID_CONFIG
