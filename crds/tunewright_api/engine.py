"""spec.engine of an InferenceService: the settings of vLLM that have a type, a limit and a check."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import Model, Rule


class DType(StrEnum):
    """Number format of the weights in memory."""

    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    FLOAT32 = "Float32"


class Quantization(StrEnum):
    """How the weights are, or become, smaller."""

    AWQ = "AWQ"
    GPTQ = "GPTQ"
    COMPRESSED_TENSORS = "CompressedTensors"
    FP8 = "FP8"
    BITS_AND_BYTES = "BitsAndBytes"


# vLLM's arguments that a typed field, the artifact or the supervisor decides, or that open what we keep closed: none
# may come from extraArgs, not even shortened (argparse takes `--max-model-l`) or with underscores.
RESERVED_ARGUMENTS = (
    # decided by a field of spec.engine, spec.sampling or spec.model
    *("model", "served-model-name", "tokenizer", "revision", "dtype", "max-model-len", "gpu-memory-utilization"),
    *("tensor-parallel-size", "pipeline-parallel-size", "quantization", "max-num-seqs", "enforce-eager"),
    *("enable-chunked-prefill", "no-enable-chunked-prefill", "enable-prefix-caching", "no-enable-prefix-caching"),
    *("generation-config", "override-generation-config"),
    # decided by the server image
    *("host", "port", "uds", "root-path", "api-server-count", "shutdown-timeout", "middleware", "headless", "config"),
    *("disable-fastapi-docs", "disable-access-log-for-endpoints"),
    # opens what is closed, or runs code from outside the verified artifact
    *("api-key", "trust-remote-code", "enable-log-requests", "enable-log-outputs", "allowed-local-media-path"),
    *("tool-parser-plugin", "reasoning-parser-plugin", "worker-cls", "worker-extension-cls", "logits-processors"),
    *("enable-tokenizer-info-endpoint", "enable-server-load-tracking", "profiler-config", "hf-token", "hf-overrides"),
)
_NAMES = ", ".join(f"'--{name}'" for name in RESERVED_ARGUMENTS)

ExtraArgument = Annotated[
    str, StringConstraints(max_length=256, pattern=r"^--[a-z][a-z0-9]*([-_][a-z0-9]+)*(\.[A-Za-z0-9_.-]+)?(=[^\n]*)?$")
]


class Engine(Model):
    """Settings of vLLM."""

    cel: ClassVar = (
        Rule(
            f"!has(self.extraArgs) || self.extraArgs.all(a, ![{_NAMES}].exists(n, "
            "n.startsWith(a.split('=')[0].split('.')[0].replace('_', '-'))))",
            "extraArgs is a last resort: use the typed field of engine or sampling; the server's address, its access "
            "rules and code from outside the artifact cannot be set",
        ),
    )

    dtype: DType = Field(default=DType.AUTO, description="Number format of the weights; Auto takes the model's own.")
    quantization: Quantization | None = Field(
        default=None,
        description="How the weights are, or become, smaller. AWQ, GPTQ and CompressedTensors read weights that were "
        "quantized before; FP8 and BitsAndBytes quantize while loading and need a GPU. The artifact's own if absent.",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=16,
        le=10_485_760,
        description="Longest context, in tokens; the model's own limit if absent.",
    )
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="Share of each GPU's memory that vLLM may take."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64, description="GPUs that share each layer.")
    pipeline_parallel_size: int = Field(
        default=1, ge=1, le=64, description="Groups of GPUs that each hold a part of the layers."
    )
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Requests that one pod works on at a time, others wait (vLLM's max-num-seqs); vLLM's choice if "
        "absent.",
    )
    chunked_prefill: bool | None = Field(
        default=None, description="Mix pieces of long prompts with running generation; vLLM's choice if absent."
    )
    prefix_caching: bool | None = Field(
        default=None,
        description="Keep the work done for a prompt's beginning for the next one; vLLM's choice if absent.",
    )
    cpu_kv_cache_gib: int | None = Field(
        default=None,
        alias="cpuKVCacheGiB",
        ge=1,
        le=1024,
        description="Memory of the key-value cache without a GPU, in GiB; 1 if absent.",
    )
    extra_args: list[ExtraArgument] | None = Field(
        default=None,
        max_length=16,
        description="Further arguments of vLLM as --name or --name=value: a last resort, refused where a typed field "
        "exists.",
    )


class Sampling(Model):
    """What holds for requests that do not say it themselves."""

    temperature: float | None = Field(default=None, ge=0, le=2, description="Randomness of the choice of each token.")
    max_tokens: int | None = Field(default=None, ge=1, le=1_048_576, description="Longest answer, in tokens.")
