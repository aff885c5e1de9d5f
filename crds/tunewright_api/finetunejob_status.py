"""status of a FineTuneJob."""

from enum import StrEnum

from pydantic import Field

from tunewright_api.base import (
    LocalObjectRef,
    LongText,
    StatusModel,
    Text,
)
from tunewright_api.conditions import Condition
from tunewright_api.evaluation import MetricResult, Sample


class JobStage(StrEnum):
    """Where the job is, for people; programs read the conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    COMPLETE = "Complete"
    FAILED = "Failed"


class JobProgress(StatusModel):
    """How far the training is, as rank 0 last reported it."""

    percent: int = Field(ge=0, le=100, description="Optimizer steps done, in percent.")
    step: int = Field(ge=0, description="Optimizer steps done.")
    total_steps: int = Field(ge=0, description="Optimizer steps of the whole run.")
    epoch: float = Field(ge=0, description="Passes over the training records done.")
    eta_seconds: int | None = Field(default=None, ge=0, description="Expected seconds to the last step.")
    tokens_per_second: float | None = Field(default=None, ge=0, description="Tokens per second over all processes.")
    loss: float | None = Field(default=None, description="Training loss of the last logged step.")
    eval_loss: float | None = Field(default=None, description="Newest loss on held-out records, while training.")
    gpu_memory_percent: float | None = Field(
        default=None, ge=0, description="Memory allocated on the GPU of rank 0, in percent; absent on a CPU."
    )
    learning_rate: float | None = Field(default=None, ge=0, description="Learning rate of the last step.")
    summary: Text = Field(default="", description="All of it in one line, as `kubectl get` shows it.")


class CheckpointStatus(StatusModel):
    """The newest complete checkpoint."""

    step: int = Field(ge=0, description="Optimizer step at which it was saved.")


class EstimateStatus(StatusModel):
    """What training will need, from the numbers of the model and the settings of the job."""

    memory_per_device: Text = Field(description="Memory of each GPU, or of each process without GPUs, such as 20.6Gi.")
    gpu_memory: Text | None = Field(
        default=None,
        description="Memory that each GPU has, if scheduling.nodeSelector tells it with nvidia.com/gpu.memory or "
        "nvidia.com/gpu.product.",
    )
    fits: bool | None = Field(default=None, description="Whether it fits; absent if gpuMemory is.")


class DatasetStatus(StatusModel):
    """What the prepare stage found."""

    records: int = Field(ge=0, description="Rows read: those to train on, held out, dropped and quarantined together.")
    train: int = Field(ge=0, description="Records to train on.")
    validation: int = Field(ge=0, description="Records held out.")
    truncated: int = Field(ge=0, description="Records longer than sequenceLength, which are cut.")
    divided: int = Field(default=0, ge=0, description="Documents longer than sequenceLength, which are divided.")
    pieces: int = Field(default=0, ge=0, description="Records that the divided documents became.")
    duplicates: int = Field(default=0, ge=0, description="Rows that repeat an earlier one, kept or dropped.")
    dropped: int = Field(default=0, ge=0, description="Rows left out by onLongRecord or onDuplicate.")
    quarantined: int = Field(default=0, ge=0, description="Wrong rows that were set aside by onBadRow.")
    notes: list[Text] = Field(
        default_factory=list,
        max_length=5,
        description="The first rows that were cut, dropped or set aside, with file, line and reason.",
    )
    digest: Text = Field(description="SHA-256 of the file, or of the names and digests of several.")


class Restart(StatusModel):
    """A training attempt that was lost."""

    attempt: int = Field(ge=1, description="Number of the attempt that ended.")
    time: Text = Field(description="When it ended (RFC 3339).")
    pod: Text | None = Field(default=None, description="Pod that ended first.")
    node: Text | None = Field(default=None, description="Node of that pod.")
    rank: int | None = Field(default=None, description="Rank of that pod among the nodes.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    cause: Text = Field(description="Reason, in CamelCase.")


class StageTime(StatusModel):
    """When a stage ran."""

    stage: Text = Field(description="Name of the stage.")
    started: Text = Field(description="Start of its first Job (RFC 3339).")
    finished: Text | None = Field(default=None, description="End of its last Job (RFC 3339).")
    repeated: list[Text] = Field(
        default_factory=list,
        max_length=8,
        description="UIDs of its Jobs whose pods were gone before their result could be read: the stage ran again.",
    )


class FineTuneJobStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int = Field(default=-1, description="metadata.generation this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Accepted, Reconciling, Stalled, Suspended, DatasetReady, Trained, Evaluated, Exported, Complete, "
        "Failed.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    stage: JobStage | None = Field(default=None, description="Where the job is.")
    message: LongText | None = Field(default=None, description="The one sentence that matters now.")
    start_time: Text | None = Field(default=None, description="When the first stage was created (RFC 3339).")
    completion_time: Text | None = Field(default=None, description="When the job ended (RFC 3339).")
    dataset: DatasetStatus | None = Field(default=None, description="What the prepare stage found.")
    estimate: EstimateStatus | None = Field(default=None, description="Memory that training will need.")
    progress: JobProgress | None = Field(default=None, description="How far the training is.")
    last_checkpoint: CheckpointStatus | None = Field(default=None, description="The newest complete checkpoint.")
    restarts: list[Restart] = Field(
        default_factory=list,
        max_length=101,
        description="Training attempts that were lost.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["attempt"]},
    )
    evaluation: list[MetricResult] = Field(
        default_factory=list,
        max_length=16,
        description="Base against tuned model on the held-out records.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )
    samples: list[Sample] = Field(
        default_factory=list, max_length=5, description="evaluation.samplePrompts, answered by both models."
    )
    stages: list[StageTime] = Field(
        default_factory=list,
        max_length=8,
        description="When each stage ran.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage"]},
    )
    model_version_ref: LocalObjectRef | None = Field(default=None, description="The ModelVersion made by the job.")
