"""FineTuneJob: one fine-tuning run, immutable but for `suspend` and what governs its life time."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    LocalObjectRef,
    Model,
    Quantity,
    Rule,
    ShortName,
    VersionName,
    whole_gpus,
)
from tunewright_api.dataset import Dataset
from tunewright_api.distributed import Distributed
from tunewright_api.evaluation import Evaluation
from tunewright_api.finetunejob_status import FineTuneJobStatus
from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.method import Method
from tunewright_api.objective import OBJECTIVE_RULES, Objective
from tunewright_api.scheduling import Scheduling
from tunewright_api.uris import ModelUri, PvcUri

_NEW_NAME = "is immutable: commit a FineTuneJob with a new name"


class BaseModelSource(Model):
    """The model that training starts from."""

    cel: ClassVar = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.secretRef)",
            "baseModel.secretRef is the token for hf:// models: remove it for a pvc:// model",
        ),
        Rule(
            "self.uri.startsWith('hf://') || !has(self.revision)",
            "baseModel.revision is a Git revision of an hf:// model: remove it for a pvc:// model",
        ),
    )

    uri: ModelUri = Field(
        description="Where the model is: pvc://CLAIM/PATH (a Hugging Face model directory) or hf://ORG/NAME."
    )
    revision: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        default=None, description="Branch, tag or commit of an hf:// model; its default branch if absent."
    )
    secret_ref: LocalObjectRef | None = Field(
        default=None, description="Secret whose key HF_TOKEN opens a gated hf:// model."
    )


# --- life -------------------------------------------------------------------------------------


class Checkpoint(Model):
    """Saved training state, from which a restarted attempt goes on."""

    every_steps: int = Field(default=100, ge=1, le=1_000_000, description="Optimizer steps between two checkpoints.")
    keep_last: int = Field(default=2, ge=1, le=100, description="Complete checkpoints to keep.")


class RestartPolicy(Model):
    """What happens when a training pod is lost."""

    max_restarts: int = Field(
        default=3,
        ge=0,
        le=100,
        description="New attempts after the loss of a pod, each with all pods and from the last checkpoint. Errors "
        "of the configuration or the data are never retried.",
    )


# --- evaluation, export, output ---------------------------------------------------------------


class Export(Model):
    """The form of the artifact."""

    merge: bool = Field(
        default=True,
        description="Merge LoRA adapters into the base weights, so that the version can be served by itself. Without "
        "it only the adapter is exported.",
    )
    max_shard_size: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(MB|GB)$", max_length=16)] = Field(
        default="5GB", description="Largest safetensors file, for example 500MB or 5GB."
    )


class Output(Model):
    """Where the artifact goes and under which name it is registered."""

    uri: PvcUri = Field(
        description="Directory that receives MODELNAME/VERSION: pvc://CLAIM/PATH. With more than one node the claim "
        "must be ReadWriteMany. Its .work/UID (UID is the job's metadata.uid) holds checkpoints, the prepared data and "
        "a downloaded model. Export removes .work/UID; a job that fails, or is deleted before its export, leaves it: "
        "remove it in any pod that mounts the claim, once no pod of the job runs."
    )
    model_name: ShortName = Field(description="Name of the model, shared by all its versions.")
    version: VersionName = Field(description="Version of the model; the ModelVersion is called MODELNAME-VERSION.")


# --- the kind ---------------------------------------------------------------------------------

_IMMUTABLE = (
    "baseModel",
    "dataset",
    "objective",
    "method",
    "hyperparameters",
    "distributed",
    "numNodes",
    "numProcPerNode",
    "resourcesPerNode",
    "scheduling",
    "checkpoint",
    "restartPolicy",
    "evaluation",
    "export",
    "output",
)


# Processes per pod, as the operator counts them: numProcPerNode, or one per GPU, or one.
_GPUS = "string(self.resourcesPerNode['nvidia.com/gpu'])"
_PROCESSES = (
    "has(self.numProcPerNode) ? self.numProcPerNode : "
    "has(self.resourcesPerNode) && 'nvidia.com/gpu' in self.resourcesPerNode && "
    f"{_GPUS}.matches('^[1-9][0-9]{{0,3}}$') ? int({_GPUS}) : 1"
)


class FineTuneJobSpec(Model):
    """What to train. Everything but suspend, activeDeadlineSeconds and ttlSecondsAfterFinished is immutable."""

    immutable: ClassVar = _IMMUTABLE
    immutable_advice: ClassVar = _NEW_NAME
    cel: ClassVar = (
        Rule(
            "has(self.distributed) || (self.numNodes == 1 && (!has(self.numProcPerNode) || self.numProcPerNode == 1))",
            "more than one process needs `distributed`, for example `distributed: {deepspeed: {zeroStage: 0..3}}`: add "
            "it, or set numNodes and numProcPerNode to 1",
        ),
        whole_gpus("resourcesPerNode"),
        Rule(
            "has(self.distributed) || !has(self.resourcesPerNode) || !('nvidia.com/gpu' in self.resourcesPerNode)"
            " || string(self.resourcesPerNode['nvidia.com/gpu']) in ['0', '1'] || has(self.numProcPerNode)",
            "several GPUs per node run one process each: add `distributed`, for example "
            "`distributed: {deepspeed: {zeroStage: 0..3}}`",
        ),
        Rule(
            "!has(self.distributed) || !has(self.distributed.pipeline) || "
            f"(self.numNodes * ({_PROCESSES})) % self.distributed.pipeline.stages == 0",
            "distributed.pipeline.stages must divide the number of processes, numNodes x numProcPerNode",
        ),
        Rule(
            "!has(self.distributed) || !has(self.distributed.pipeline) || "
            "self.hyperparameters.gradientAccumulationSteps >= self.distributed.pipeline.stages",
            "a pipeline needs at least as many micro batches as stages: set hyperparameters.gradientAccumulationSteps "
            "to distributed.pipeline.stages or more",
        ),
        Rule(
            "!has(self.export) || !has(self.export.merge) || self.export.merge || has(self.method.lora)",
            "export.merge: false exports an adapter, which only method.lora trains: remove it or use lora",
        ),
        *OBJECTIVE_RULES,
    )

    base_model: BaseModelSource = Field(description="The model to start from.")
    dataset: Dataset = Field(description="The records to train on.")
    objective: Objective = Field(
        default_factory=Objective, description="What training minimises; supervised learning if absent."
    )
    method: Method = Field(description="How the weights are changed: exactly one of full and lora.")
    hyperparameters: Hyperparameters = Field(
        default_factory=Hyperparameters, description="The optimisation; every field has a default."
    )
    distributed: Distributed | None = Field(
        default=None, description="How several processes share the work; absent for one process."
    )
    num_nodes: int = Field(default=1, ge=1, le=1024, description="Training pods, one per node.")
    num_proc_per_node: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes per pod; the number of GPUs of resourcesPerNode, or 1.",
    )
    resources_per_node: dict[str, Quantity] | None = Field(
        default=None,
        max_length=8,
        description="What each training pod requests and is limited to: cpu, memory, nvidia.com/gpu, …",
    )
    scheduling: Scheduling | None = Field(default=None, description="Where the pods may run.")
    suspend: bool = Field(
        default=False,
        description="Stop after a checkpoint and release the nodes; set it back to false to go on.",
    )
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When training state is saved.")
    restart_policy: RestartPolicy = Field(
        default_factory=RestartPolicy, description="What happens when a training pod is lost."
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="The job fails when it takes longer than this, in seconds since status.startTime. As in a batch "
        "Job, nothing counts while it is suspended, and the count starts anew when it goes on.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="Seconds after the end at which pods and Jobs are removed; the FineTuneJob itself stays.",
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="How base and tuned model are compared.")
    export: Export = Field(default_factory=Export, description="The form of the artifact.")
    output: Output = Field(description="Where the artifact goes and under which name.")


class FineTuneJob(Model):
    """A fine-tuning run: prepare, train, evaluate, export, register."""

    spec: FineTuneJobSpec = Field(description="What to train.")
    status: FineTuneJobStatus | None = Field(default=None, description="What the operator observed.")
