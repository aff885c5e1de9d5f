"""InferenceService: an approved ModelVersion behind an OpenAI-compatible URL."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from tunewright_api.base import LongText, Model, ObjectName, Quantity, Rule, StatusModel, Text, whole_gpus
from tunewright_api.conditions import Condition
from tunewright_api.finetunejob import Scheduling


class VersionRef(Model):
    """A ModelVersion of the same namespace."""

    name: ObjectName = Field(description="Name of the ModelVersion, in the namespace of the InferenceService.")


class ServedModel(Model):
    """What to serve."""

    version_ref: VersionRef = Field(description="The ModelVersion to serve; it must be verified and approved.")


class DType(StrEnum):
    """Number format of the weights in memory."""

    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    FLOAT32 = "Float32"


class Engine(Model):
    """Settings of vLLM."""

    dtype: DType = Field(default=DType.AUTO, description="Number format of the weights; Auto takes the model's own.")
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
    cpu_kv_cache_gib: int | None = Field(
        default=None,
        alias="cpuKVCacheGiB",
        ge=1,
        le=1024,
        description="Memory of the key-value cache without a GPU, in GiB; 1 if absent.",
    )


class InferenceServiceSpec(Model):
    """What to serve and how."""

    cel: ClassVar = (
        whole_gpus("resources"),
        Rule(
            "!has(self.engine) || !has(self.engine.tensorParallelSize) || "
            "(has(self.resources) && 'nvidia.com/gpu' in self.resources && "
            "string(self.resources['nvidia.com/gpu']) != '0' ? "
            "string(self.resources['nvidia.com/gpu']) == string(self.engine.tensorParallelSize) : "
            "self.engine.tensorParallelSize == 1)",
            "engine.tensorParallelSize must equal resources['nvidia.com/gpu']: set both to the GPUs of one replica",
        ),
        Rule(
            "!has(self.engine) || !has(self.engine.cpuKVCacheGiB) || !has(self.resources) || "
            "!('nvidia.com/gpu' in self.resources)",
            "engine.cpuKVCacheGiB is for serving without a GPU: remove it or resources['nvidia.com/gpu']",
        ),
    )

    model: ServedModel = Field(description="What to serve.")
    engine: Engine = Field(default_factory=Engine, description="Settings of vLLM; every field has a default.")
    replicas: int | None = Field(default=None, ge=0, le=1000, description="Pods; 1 if absent.")
    resources: dict[str, Quantity] | None = Field(
        default=None,
        max_length=8,
        description="What each pod requests and is limited to: cpu, memory, nvidia.com/gpu, …",
    )
    scheduling: Scheduling | None = Field(default=None, description="Where the pods may run.")


class LastFailure(StatusModel):
    """The newest failure of a server pod."""

    pod: Text = Field(description="Name of the pod.")
    reason: Text = Field(description="Reason, in CamelCase.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    hint: LongText = Field(default="", description="What to do.")


class RevisionStatus(StatusModel):
    """The revision that answers."""

    version: Text = Field(description="Name of the ModelVersion.")
    revision: Text = Field(description="Hash of what makes the revision.")
    ready_replicas: int = Field(ge=0, description="Pods that answered a real completion.")
    replicas: int = Field(ge=0, description="Pods asked for.")


class InferenceServiceStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int = Field(default=-1, description="metadata.generation this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Accepted, Ready, Reconciling, Stalled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    message: LongText | None = Field(default=None, description="The one sentence that matters now.")
    url: Text | None = Field(default=None, description="OpenAI-compatible base URL inside the cluster.")
    stable: RevisionStatus | None = Field(default=None, description="The revision that answers.")
    last_failure: LastFailure | None = Field(default=None, description="The newest failure of a server pod.")


class InferenceService(Model):
    """A model behind an OpenAI-compatible URL."""

    spec: InferenceServiceSpec = Field(description="What to serve and how.")
    status: InferenceServiceStatus | None = Field(default=None, description="What the operator observed.")
