"""ServerConfig -> vLLM's arguments and environment. Pure: the machine's facts are arguments."""

import math
from collections.abc import Mapping
from pathlib import Path

from tunewright_api.inferenceservice import DType
from tunewright_api.server_config import ServerConfig

ENGINE_MODULE = "vllm.entrypoints.openai.api_server"

_DTYPES = {
    DType.AUTO: "auto",
    DType.BFLOAT16: "bfloat16",
    DType.FLOAT16: "float16",
    DType.FLOAT32: "float32",
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
    }
)


def build_arguments(config: ServerConfig, model: Path, engine_drain: float) -> list[str]:
    """The arguments of vLLM's OpenAI server for the model directory."""
    engine = config.engine
    arguments = [
        "--model", str(model),
        "--served-model-name", config.model.served_name,
        "--host", "0.0.0.0",
        "--port", str(config.port),
        "--dtype", _DTYPES[engine.dtype],
        # Finishes a request that slipped in between the drain's last look and SIGTERM.
        "--shutdown-timeout", str(math.ceil(engine_drain)),
        # Interactive documentation is an attack surface that no client of an inference API needs.
        "--disable-fastapi-docs",
        # Probes and scrapes would drown the log.
        "--disable-access-log-for-endpoints", "/health,/metrics",
        # Prompts are users' data. This is vLLM's default today; said aloud, it survives a change of it.
        "--no-enable-log-requests",
    ]  # fmt: skip
    if engine.max_model_len is not None:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    return arguments + (_gpu_arguments(config) if config.gpus else _cpu_arguments())


def build_environment(config: ServerConfig, inherited: Mapping[str, str], cpus: int, cache: Path) -> dict[str, str]:
    """The environment of vLLM: the inherited one, without back doors, offline and without usage statistics.

    cpus is what this container may use; cache a writable directory.
    """
    environment = {key: value for key, value in inherited.items() if key not in _REFUSED_VARIABLES}
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


def _gpu_arguments(config: ServerConfig) -> list[str]:
    return [
        "--gpu-memory-utilization", str(config.engine.gpu_memory_utilization),
        "--tensor-parallel-size", str(config.engine.tensor_parallel_size),
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
