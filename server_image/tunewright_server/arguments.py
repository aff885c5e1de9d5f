"""ServerConfig -> vLLM's arguments and environment. Pure: the machine's facts are arguments."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from tunewright_api.engine import DType, Engine, Quantization, Sampling
from tunewright_api.server_config import ServerConfig

ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
# Written out: importing it would bring prometheus_client into the supervisor.
MIDDLEWARE = "tunewright_server.middleware.AccessMiddleware"

_DTYPES = {
    DType.AUTO: "auto",
    DType.BFLOAT16: "bfloat16",
    DType.FLOAT16: "float16",
    DType.FLOAT32: "float32",
}

_QUANTIZATIONS = {
    Quantization.AWQ: "awq",
    Quantization.GPTQ: "gptq",
    Quantization.COMPRESSED_TENSORS: "compressed-tensors",
    Quantization.FP8: "fp8",
}

# Each of these opens or closes something behind the operator's back, so none is inherited.
_REFUSED_VARIABLES = frozenset(
    {
        "VLLM_USE_RUST_FRONTEND",  # another HTTP server, without Python middleware and its access rules
        "VLLM_RUST_FRONTEND_PATH",
        "VLLM_SERVER_DEV_MODE",  # adds endpoints that reset caches, put the engine to sleep, call RPCs
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",  # lets any client load weights
        "VLLM_ALLOW_INSECURE_SERIALIZATION",  # unpickles what it receives
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",  # writes answers to the log
        "VLLM_API_KEY",  # locks out the supervisor; access is the mesh's business
        "PROMETHEUS_MULTIPROC_DIR",  # moves the metrics to a registry of files: there is one API server process
    }
)
# Functions that vLLM's hosting layer would load and put around or in place of its endpoints.
_REFUSED_PREFIXES = ("SAGEMAKER_", "CUSTOM_FASTAPI_", "CUSTOM_PRE_PROCESS", "CUSTOM_POST_PROCESS")


def build_arguments(config: ServerConfig, model: Path, engine_drain: float) -> list[str]:
    """The arguments of vLLM's OpenAI server for the model directory."""
    return [
        # First, because the last one of two equal arguments holds.
        *(config.engine.extra_args or ()),
        "--model", str(model),
        "--served-model-name", config.model.served_name,
        "--host", "0.0.0.0",
        "--port", str(config.port),
        "--middleware", MIDDLEWARE,
        # Finishes a request that slipped in between the drain's last look and SIGTERM.
        "--shutdown-timeout", str(math.ceil(engine_drain)),
        # Interactive documentation is an attack surface that no client of an inference API needs.
        "--disable-fastapi-docs",
        # Probes and scrapes would drown the log.
        "--disable-access-log-for-endpoints", "/health,/metrics",
        # Prompts are users' data. This is vLLM's default today; said aloud, it survives a change of it.
        "--no-enable-log-requests",
        *_engine_arguments(config.engine),
        *_sampling_arguments(config.sampling),
        *(_gpu_arguments(config.engine) if config.gpus else _cpu_arguments()),
    ]  # fmt: skip


def build_environment(config: ServerConfig, inherited: Mapping[str, str], cpus: int, cache: Path) -> dict[str, str]:
    """The environment of vLLM: the inherited one, without back doors, offline and without usage statistics.

    cpus is what this container may use; cache a writable directory.
    """
    environment = {
        key: value
        for key, value in inherited.items()
        if key not in _REFUSED_VARIABLES and not key.startswith(_REFUSED_PREFIXES)
    }
    environment.setdefault("VLLM_CACHE_ROOT", str(cache))
    environment |= {
        # The artifact is complete and verified: nothing may be fetched or reported.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_DISABLE_LOG_LOGO": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return environment if config.gpus else environment | _cpu_environment(config, environment, cpus)


def _engine_arguments(engine: Engine) -> list[str]:
    """What holds on any device; what is not set is vLLM's choice."""
    arguments = ["--dtype", _DTYPES[engine.dtype]]
    if engine.quantization is not None:
        arguments += ["--quantization", _QUANTIZATIONS[engine.quantization]]
    if engine.max_model_len is not None:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    if engine.max_concurrency is not None:
        arguments += ["--max-num-seqs", str(engine.max_concurrency)]
    arguments += _switch("enable-chunked-prefill", engine.chunked_prefill)
    return arguments + _switch("enable-prefix-caching", engine.prefix_caching)


def _switch(name: str, value: bool | None) -> list[str]:
    return [] if value is None else [f"--{name}" if value else f"--no-{name}"]


def _sampling_arguments(sampling: Sampling | None) -> list[str]:
    """Laid over the model's own generation_config.json.

    A request's own temperature wins. max_new_tokens is a limit as well: vLLM cuts a request that asks for more.
    """
    given = {} if sampling is None else {"temperature": sampling.temperature, "max_new_tokens": sampling.max_tokens}
    wanted = {name: value for name, value in given.items() if value is not None}
    return ["--override-generation-config", json.dumps(wanted)] if wanted else []


def _gpu_arguments(engine: Engine) -> list[str]:
    return [
        "--gpu-memory-utilization", str(engine.gpu_memory_utilization),
        "--tensor-parallel-size", str(engine.tensor_parallel_size),
        "--pipeline-parallel-size", str(engine.pipeline_parallel_size),
    ]  # fmt: skip


def _cpu_arguments() -> list[str]:
    # Without --enforce-eager vLLM compiles with inductor, which needs a C++ compiler in the image and takes
    # minutes on a small machine. Eager with an explicit cache size also skips the warm-up. Smaller
    # --max-num-seqs or --max-num-batched-tokens did not change the start.
    return ["--enforce-eager"]


def _cpu_environment(config: ServerConfig, environment: Mapping[str, str], cpus: int) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(config.engine.cpu_kv_cache_gib or 1),
        # Runs the worker inside the engine's process: one start of Python, torch and vLLM less, 13 s of CPU time of
        # SmolLM2's start and 0.9 GiB. The engine itself stays a process of its own. The other way exists to pin
        # OpenMP's threads to cores, which is wrong in a pod without exclusive cores: two replicas on one node
        # would both pin to the first cores.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # One core is left for the HTTP server and the scheduler, as vLLM's own binding does: threads that
        # spin on a core they share made generation four times slower.
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS") or str(max(cpus - 1, 1)),
    }
