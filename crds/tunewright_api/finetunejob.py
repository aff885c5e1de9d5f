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
from tunewright_api.distributed_rules import DISTRIBUTED_RULES
from tunewright_api.evaluation import Evaluation
from tunewright_api.finetunejob_status import FineTuneJobStatus
from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.method import Method
from tunewright_api.method_rules import METHOD_RULES
from tunewright_api.objective import OBJECTIVE_RULES, Objective
from tunewright_api.pruning import Pruning
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

    cel: ClassVar = (
        Rule(
            "self.merge || !has(self.pruning)",
            "export.pruning prunes a whole model: remove it, or set export.merge to true",
        ),
    )

    merge: bool = Field(
        default=True,
        description="Merge LoRA adapters into the base weights (qlora: into those restored from 4 bits, on which it "
        "was trained), so that the version can be served by itself. Without it only the adapter is exported.",
    )
    max_shard_size: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(MB|GB)$", max_length=16)] = Field(
        default="5GB", description="Largest safetensors file, for example 500MB or 5GB."
    )
    pruning: Pruning | None = Field(
        default=None,
        description="Set small weights to 0 before the model is evaluated and written; none if absent.",
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


class FineTuneJobSpec(Model):
    """What to train. Everything but suspend, activeDeadlineSeconds and ttlSecondsAfterFinished is immutable."""

    immutable: ClassVar = _IMMUTABLE
    immutable_advice: ClassVar = _NEW_NAME
    cel: ClassVar = (
        whole_gpus("resourcesPerNode"),
        *DISTRIBUTED_RULES,
        *METHOD_RULES,
        *OBJECTIVE_RULES,
    )

    base_model: BaseModelSource = Field(description="The model to start from.")
    dataset: Dataset = Field(description="The records to train on.")
    objective: Objective = Field(
        default_factory=Objective, description="What training minimises; supervised learning if absent."
    )
    method: Method = Field(description="How the weights are changed: exactly one of the fields.")
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
