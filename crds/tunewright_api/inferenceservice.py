"""InferenceService: an approved ModelVersion behind an OpenAI-compatible URL."""

from typing import ClassVar

from pydantic import Field

from tunewright_api.base import (
    LongText,
    Model,
    Name,
    ObjectName,
    Quantity,
    Rule,
    ShortName,
    StatusModel,
    Text,
    whole_gpus,
)
from tunewright_api.conditions import Condition
from tunewright_api.engine import Engine, Sampling
from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import (
    Analysis,
    CandidateStatus,
    HandledRequest,
    Performance,
    RejectedRevision,
    RevisionStatus,
    RolloutDecision,
    TrafficStatus,
)
from tunewright_api.scheduling import Scheduling
from tunewright_api.traffic import Traffic


class VersionRef(Model):
    """A ModelVersion of the same namespace."""

    name: ObjectName = Field(description="Name of the ModelVersion, in the namespace of the InferenceService.")


class AliasRef(Model):
    """The version that carries this alias now. Moving the alias to another version starts a rollout."""

    model_name: ShortName = Field(description="spec.modelName of the ModelVersions.")
    name: Name = Field(description="The alias: an entry of spec.aliases of one ModelVersion.")


class ServedModel(Model):
    """What to serve."""

    cel: ClassVar = (
        Rule("has(self.versionRef) != has(self.alias)", "model: write exactly one of versionRef and alias"),
    )

    version_ref: VersionRef | None = Field(
        default=None, description="The ModelVersion to serve; it must be verified and approved."
    )
    alias: AliasRef | None = Field(default=None, description="The ModelVersion to serve, by its alias.")


_GPUS = "(has(self.resources) && 'nvidia.com/gpu' in self.resources ? string(self.resources['nvidia.com/gpu']) : '0')"
_ENGINE = "!has(self.engine) || "


class InferenceServiceSpec(Model):
    """What to serve and how."""

    cel: ClassVar = (
        whole_gpus("resources"),
        Rule(
            f"{_ENGINE}!has(self.engine.tensorParallelSize) || !has(self.engine.pipelineParallelSize) || "
            f"({_GPUS} != '0' ? "
            f"{_GPUS} == string(self.engine.tensorParallelSize * self.engine.pipelineParallelSize) : "
            "self.engine.tensorParallelSize * self.engine.pipelineParallelSize == 1)",
            "engine.tensorParallelSize times engine.pipelineParallelSize must equal resources['nvidia.com/gpu'], the "
            "GPUs of one replica",
        ),
        Rule(
            f"{_ENGINE}!has(self.engine.cpuKVCacheGiB) || {_GPUS} == '0'",
            "engine.cpuKVCacheGiB is for serving without a GPU: remove it or resources['nvidia.com/gpu']",
        ),
        Rule(
            f"{_ENGINE}!has(self.engine.quantization) || self.engine.quantization != 'FP8' || {_GPUS} != '0'",
            "engine.quantization FP8 needs a GPU: set resources['nvidia.com/gpu']",
        ),
        Rule(
            "!has(self.sampling) || !has(self.sampling.maxTokens) || !has(self.engine) || "
            "!has(self.engine.maxModelLen) || self.sampling.maxTokens < self.engine.maxModelLen",
            "sampling.maxTokens must be less than engine.maxModelLen, which also holds the prompt",
        ),
        Rule(
            "!has(self.rollout) || !has(self.rollout.mirror) || !self.rollout.mirror || "
            "has(self.traffic) && self.traffic.provider != 'None'",
            "rollout.mirror needs traffic.provider Istio or GatewayAPI: a plain Service copies no requests",
        ),
    )

    model: ServedModel = Field(description="What to serve.")
    engine: Engine = Field(default_factory=Engine, description="Settings of vLLM; every field has a default.")
    sampling: Sampling | None = Field(default=None, description="What holds for requests that do not say it.")
    replicas: int | None = Field(default=None, ge=0, le=1000, description="Pods; 1 if absent.")
    resources: dict[str, Quantity] | None = Field(
        default=None,
        max_length=8,
        description="What each pod requests and is limited to: cpu, memory, nvidia.com/gpu, …",
    )
    scheduling: Scheduling | None = Field(default=None, description="Where the pods may run.")
    drain_seconds: int = Field(
        default=30,
        ge=0,
        le=3600,
        description="How long running requests may go on when their pod is stopped: the longest stream you promise.",
    )
    traffic: Traffic = Field(default_factory=Traffic, description="How requests reach the revisions.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a new revision takes over.")


class LastFailure(StatusModel):
    """The newest failure of a server pod."""

    pod: Text = Field(description="Name of the pod.")
    reason: Text = Field(description="Reason, in CamelCase.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    hint: LongText = Field(default="", description="What to do.")


class InferenceServiceStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int = Field(default=-1, description="metadata.generation this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Accepted, Ready, Degraded, Reconciling, Stalled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    message: LongText | None = Field(default=None, description="The one sentence that matters now.")
    url: Text | None = Field(default=None, description="OpenAI-compatible base URL inside the cluster.")
    stable: RevisionStatus | None = Field(default=None, description="The revision that answers.")
    candidate: CandidateStatus | None = Field(default=None, description="The revision that is on its way.")
    analysis: Analysis | None = Field(default=None, description="The newest check: numbers, thresholds, verdict.")
    history: list[RolloutDecision] = Field(
        default_factory=list, max_length=10, description="The last ten decisions, the newest first."
    )
    rejected: RejectedRevision | None = Field(
        default=None, description="The revision that was rolled back and is not tried again."
    )
    last_handled_request: HandledRequest | None = Field(
        default=None, description="What became of the annotation tunewright.io/request."
    )
    performance: Performance | None = Field(default=None, description="Speed of one pod, measured at its start.")
    traffic: TrafficStatus | None = Field(default=None, description="Who splits the traffic.")
    last_failure: LastFailure | None = Field(default=None, description="The newest failure of a server pod.")


class InferenceService(Model):
    """A model behind an OpenAI-compatible URL."""

    spec: InferenceServiceSpec = Field(description="What to serve and how.")
    status: InferenceServiceStatus | None = Field(default=None, description="What the operator observed.")
