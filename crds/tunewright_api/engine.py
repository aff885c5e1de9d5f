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


# vLLM's arguments that a typed field, the artifact or the supervisor decides, or that open what we keep closed: none
# may come from extraArgs, not even shortened (argparse takes `--max-model-l`) or with underscores.
RESERVED_ARGUMENTS = (
    # decided by a field of spec.engine, spec.sampling or spec.model
    *("model", "served-model-name", "tokenizer", "tokenizer-revision", "revision", "dtype", "max-model-len"),
    *("gpu-memory-utilization", "device-memory-utilization", "kv-cache-memory-bytes", "tensor-parallel-size"),
    *("pipeline-parallel-size", "quantization", "max-num-seqs", "generation-config", "override-generation-config"),
    *("enable-chunked-prefill", "no-enable-chunked-prefill", "enable-prefix-caching", "no-enable-prefix-caching"),
    # decided by the server image: address, protocol, processes, log, metrics
    *("host", "port", "uds", "root-path", "grpc", "grpc-port", "api-server-count", "shutdown-timeout", "middleware"),
    *("headless", "help", "config", "disable-fastapi-docs", "disable-access-log-for-endpoints", "disable-log-stats"),
    *("ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "ssl-ciphers", "enable-ssl-refresh"),
    *("allow-credentials", "allowed-origins", "allowed-methods", "allowed-headers", "api-key"),
    # decided by the pod: one node, one server, its own GPUs
    *("nnodes", "node-rank", "master-addr", "master-port", "distributed-executor-backend", "enable-elastic-ep"),
    *("data-parallel-size", "data-parallel-size-local", "data-parallel-rank", "data-parallel-start-rank"),
    *("data-parallel-address", "data-parallel-rpc-port", "data-parallel-backend", "data-parallel-hybrid-lb"),
    *("data-parallel-external-lb", "data-parallel-multi-port-external-lb", "data-parallel-supervisor-port"),
    *("prefill-context-parallel-size",),
    # opens what is closed, or lets a request choose what the artifact or the operator decides
    *("enable-log-requests", "enable-log-outputs", "enable-tokenizer-info-endpoint", "enable-server-load-tracking"),
    *("enable-offline-docs", "enable-scale-out", "tokens-only", "enable-fault-tolerance", "fault-tolerance-config"),
    *("allowed-local-media-path", "allowed-media-domains", "enable-prompt-embeds", "enable-mm-embeds"),
    *("trust-request-chat-template", "trust-request-mm-kwargs", "enable-trace-replay"),
    # loads code, weights or configuration from outside the verified artifact
    *("trust-remote-code", "code-revision", "hf-token", "hf-overrides", "hf-config-path", "load-format"),
    *("model-loader-extra-config", "model-class-overrides", "lora-modules", "default-mm-loras", "spec-model"),
    *("speculative-config", "weight-transfer-config", "kv-transfer-config", "kv-events-config", "ec-transfer-config"),
    *("tool-parser-plugin", "reasoning-parser-plugin", "io-processor-plugin", "tool-server", "logits-processors"),
    *("worker-cls", "worker-extension-cls", "scheduler-cls", "profiler-config", "logging-config", "log-config-file"),
)
# Whole names that are also the beginning of a reserved one.
UNRESERVED_ARGUMENTS = ("reasoning-parser",)
_RESERVED, _UNRESERVED = (
    ", ".join(f"'--{name}'" for name in names) for names in (RESERVED_ARGUMENTS, UNRESERVED_ARGUMENTS)
)

ExtraArgument = Annotated[
    str, StringConstraints(max_length=256, pattern=r"^--[a-z][a-z0-9]*([-_][a-z0-9]+)*((\.[A-Za-z0-9_.-]+)?=[^\n]*)?$")
]


class Engine(Model):
    """Settings of vLLM."""

    cel: ClassVar = (
        Rule(
            "!has(self.extraArgs) || self.extraArgs.map(a, a.split('=')[0].split('.')[0].replace('_', '-'))"
            f".all(a, a in [{_UNRESERVED}] || ![{_RESERVED}].exists(n, n.startsWith(a)))",
            "extraArgs is a last resort: use the typed field of engine or sampling; the server's address, its access "
            "rules and code from outside the artifact cannot be set",
        ),
    )

    dtype: DType = Field(default=DType.AUTO, description="Number format of the weights; Auto takes the model's own.")
    quantization: Quantization | None = Field(
        default=None,
        description="How the weights are, or become, smaller. AWQ, GPTQ and CompressedTensors read weights that were "
        "quantized before; FP8 quantizes while loading and needs a GPU. The artifact's own if absent.",
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
    """What holds for requests that do not say it themselves; the model's own generation_config.json if absent."""

    temperature: float | None = Field(default=None, ge=0, le=2, description="Randomness of the choice of each token.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_048_576,
        description="Longest answer, in tokens: also the limit of requests that ask for more.",
    )
