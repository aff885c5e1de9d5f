"""What vLLM says when it cannot go on, and what to do about it: a table for `diagnosis`.

The patterns are the words of vLLM 0.32, PyTorch, transformers and safetensors; tests/server/test_diagnosis.py has whole
outputs of each.
"""

import re
import signal
from dataclasses import dataclass

from tunewright_api.names import ExitCode


@dataclass(frozen=True)
class Cause:
    """A line of vLLM's output that matches, the exit code that follows, and what happened with what to do."""

    pattern: re.Pattern[str]
    code: ExitCode
    message: str


def _cause(pattern: str, code: ExitCode, message: str) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE), code, message)


OUT_OF_MEMORY = "raise resources.memory, or lower engine.maxModelLen or engine.cpuKVCacheGiB"

# The first that matches any line decides; the more special ones stand first.
CAUSES = (
    _cause(
        r"address already in use",
        ExitCode.INTERNAL,
        "the port of the API is taken by another process of this pod: remove the container that listens on it",
    ),
    # What the artifact holds. A damaged header is read as a length, which no memory can hold: before memory.
    _cause(
        r"SafetensorError|in parse_safetensors_file_metadata|PytorchStreamReader failed|invalid load key",
        ExitCode.INVALID_DATA,
        "the weights of the artifact are damaged, cut off, or no weights (the pointer of a Git LFS file?): register "
        "whole files",
    ),
    _cause(
        r"Cannot find any model weights|Weight files referenced in index but missing|"
        r"weights were not initialized from checkpoint",
        ExitCode.INVALID_DATA,
        "weights are missing in the artifact: register all of the model's files",
    ),
    # Memory and volumes.
    _cause(
        r"larger than the available KV cache memory|No available memory for the cache blocks|"
        r"is less than requested memory for kv",
        ExitCode.OUT_OF_MEMORY,
        "the key-value cache does not fit: lower engine.maxModelLen, or raise engine.cpuKVCacheGiB with "
        "resources.memory (on a GPU: engine.gpuMemoryUtilization, or more GPUs)",
    ),
    _cause(
        r"less than desired GPU memory utilization",
        ExitCode.OUT_OF_MEMORY,
        "something else uses the GPU's memory: lower engine.gpuMemoryUtilization, or end what runs on that GPU",
    ),
    _cause(
        r"(CUDA|HIP) out of memory|torch\S*OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation",
        ExitCode.OUT_OF_MEMORY,
        "the model does not fit on its GPUs: share it by more of them (engine.tensorParallelSize), quantize it, or "
        "lower engine.maxModelLen or engine.maxConcurrency",
    ),
    _cause(
        r"shared memory segment|shared memory\(shm\)|shared memory file|/dev/shm\b.*no space|no space.*/dev/shm\b",
        ExitCode.VOLUME_FULL,
        "/dev/shm is too small: give it more room, it counts as resources.memory",
    ),
    _cause(
        r"no space left on device|disk quota exceeded",
        ExitCode.VOLUME_FULL,
        "a volume of the pod is full: give /tmp and /dev/shm more room",
    ),
    _cause(
        r"out of memory|MemoryError|std::bad_alloc|can't allocate memory|cannot allocate memory",
        ExitCode.OUT_OF_MEMORY,
        f"vLLM ran out of memory: {OUT_OF_MEMORY}",
    ),
    # GPUs.
    _cause(
        r"Found no NVIDIA driver|No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device|"
        r"libcuda\.so\S*: cannot open|NVMLError|is larger than the number of available GPUs|invalid device ordinal",
        ExitCode.GPU_UNUSABLE,
        "this pod sees fewer GPUs than engine.tensorParallelSize times engine.pipelineParallelSize: ask for them in "
        "resources['nvidia.com/gpu'], and check the NVIDIA driver and device plugin of the node",
    ),
    _cause(
        r"driver on your system is too old|driver version is insufficient|no kernel image is available",
        ExitCode.GPU_UNUSABLE,
        "the node's GPU or its driver is too old for this image: update the driver, or choose other nodes in "
        "scheduling",
    ),
    _cause(
        r"NCCL error|nccl\w+Error|uncorrectable ECC|busy or unavailable|GPU is lost",
        ExitCode.GPU_UNUSABLE,
        "a GPU failed, or the GPUs of the pod cannot talk to each other: look at the node's kernel log (Xid), and give "
        "/dev/shm more room",
    ),
    # Settings that the model or the device cannot have.
    _cause(
        r"max_model_len .* is greater than the derived max_model_len",
        ExitCode.INVALID_CONFIG,
        "engine.maxModelLen exceeds what the model was made for: lower it or leave it out",
    ),
    _cause(
        r"quantization config.* does not match|Quantization method specified in the model config|"
        r"Cannot find the config file for|(TypeError|ValueError): \w+Config\.__init__\(\) missing",
        ExitCode.INVALID_CONFIG,
        "the artifact's weights are not quantized as engine.quantization says: leave it out (AWQ, GPTQ and "
        "CompressedTensors are for weights that were quantized before)",
    ),
    _cause(
        r"quantization is currently not supported|quantization (method|scheme) .*is not supported|"
        r"Quantization scheme is not supported|is not supported for quantization method|"
        r"Unknown quantization method|_scaled_fp8_quant",
        ExitCode.INVALID_CONFIG,
        "engine.quantization does not work on this device or with this engine.dtype: choose another or leave it out",
    ),
    _cause(
        r"bfloat16 is only supported on GPUs|dtype .* is not supported",
        ExitCode.INVALID_CONFIG,
        "engine.dtype does not work on this device: set Float16, or choose newer GPUs in scheduling",
    ),
    _cause(
        r"must be divisible by tensor parallel size|not divisible by .*tensor|"
        r"pipeline parallelism is not supported|does not support pipeline parallelism",
        ExitCode.INVALID_CONFIG,
        "the model cannot be shared by so many GPUs: change engine.tensorParallelSize (it must divide the attention "
        "heads) and engine.pipelineParallelSize",
    ),
    # The model itself.
    _cause(
        r"model architectures? .* (not supported|failed to be inspected)|is not supported (for now|anymore|in-tree)|"
        r"does not recognize this architecture",
        ExitCode.INVALID_DATA,
        "this version of vLLM cannot serve the model's architecture: choose a base model that vLLM supports",
    ),
    _cause(
        r"Unrecognized model in|should have a `model_type`|Invalid repository ID or local directory|"
        r"is not a valid JSON file|does not appear to have a file named config\.json|no config file found",
        ExitCode.INVALID_DATA,
        "the artifact holds no model that vLLM recognises (config.json is missing, broken or without model_type): "
        "train or register it again",
    ),
    _cause(
        r"instantiate the backend tokenizer|Can't load tokenizer|[/\\]tokenization_\w+\.py|"
        r"Exception: data did not match any variant of untagged enum",
        ExitCode.INVALID_DATA,
        "the tokenizer of the artifact is missing or broken (tokenizer.json): register the model with its tokenizer",
    ),
    _cause(
        r", in (default_)?weight_loader$|size mismatch for |shape mismatch",
        ExitCode.INVALID_DATA,
        "the weights of the artifact do not fit its config.json: register files that belong together",
    ),
    _cause(
        r"Permission denied",
        ExitCode.INPUT_NOT_READABLE,
        "a file cannot be read by user 65532, or a volume cannot be written to",
    ),
    _cause(
        r"No module named 'tunewright_",
        ExitCode.INVALID_CONFIG,
        "the server image has a vLLM that cannot import our access rules: build the image as its Dockerfile does",
    ),
    _cause(
        r"validation errors? for \w*Config",
        ExitCode.INVALID_CONFIG,
        "vLLM refuses a setting: correct spec.engine",
    ),
)
# Signals that have one usual cause.
SIGNALS = {
    signal.SIGKILL: (
        ExitCode.OUT_OF_MEMORY,
        f"vLLM was killed (SIGKILL), most likely for exceeding the memory limit: {OUT_OF_MEMORY}",
    ),
    signal.SIGBUS: (
        ExitCode.VOLUME_FULL,
        "vLLM was ended by SIGBUS, most likely because /dev/shm is full: give it more room, it counts as "
        "resources.memory",
    ),
    signal.SIGILL: (
        ExitCode.INTERNAL,
        "vLLM was ended by SIGILL: the node's CPU lacks instructions that it needs (AVX2 or AVX512), choose other "
        "nodes in scheduling",
    ),
}
