"""FineTuneJob: one fine-tuning run, immutable but for `suspend` and what governs its life time."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    LocalObjectRef,
    LongText,
    Model,
    Name,
    Quantity,
    Rule,
    ShortName,
    StatusModel,
    Text,
    VersionName,
    whole_gpus,
)
from tunewright_api.conditions import Condition
from tunewright_api.uris import ModelUri, PvcUri

_NEW_NAME = "is immutable: commit a FineTuneJob with a new name"


# --- inputs -----------------------------------------------------------------------------------


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


class DatasetFormat(StrEnum):
    """Shape of one JSON line."""

    ALPACA = "Alpaca"
    CHAT = "Chat"
    PROMPT_COMPLETION = "PromptCompletion"


class Dataset(Model):
    """The records to train on."""

    uri: PvcUri = Field(description="JSON Lines file: pvc://CLAIM/PATH/FILE.jsonl.")
    format: DatasetFormat = Field(
        description="Alpaca: {instruction, input?, output}. Chat: {messages: [{role, content}]}, the last one "
        "by the assistant. PromptCompletion: {prompt, completion}."
    )
    validation_percent: int = Field(
        default=10,
        ge=1,
        le=50,
        description="Share of the records held out for evaluation, in percent; chosen by hyperparameters.seed.",
    )


# --- method -----------------------------------------------------------------------------------


class FullMethod(Model):
    """Full fine-tuning: every weight is trained."""


class LoraMethod(Model):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): W + (alpha / rank) B A."""

    rank: int = Field(default=16, ge=1, le=512, description="Rank r of the update matrices A and B.")
    alpha: int = Field(default=32, ge=1, le=2048, description="Scale: the update is multiplied by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the input of the adapter.")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Names of the modules to adapt, for example q_proj; every linear layer but the head if absent.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Method(Model):
    """How the weights are changed: exactly one of the fields."""

    cel: ClassVar = (
        Rule("has(self.full) != has(self.lora)", "method: write exactly one of `full: {}` and `lora: {…}`"),
    )

    full: FullMethod | None = Field(default=None, description="Train every weight.")
    lora: LoraMethod | None = Field(default=None, description="Train low-rank adapters.")


# --- optimisation -----------------------------------------------------------------------------


class Scheduler(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Precision(StrEnum):
    """Number format of the forward and backward pass."""

    BF16 = "BF16"
    FP32 = "FP32"


class Hyperparameters(Model):
    """The optimisation: AdamW over epochs or steps. The global batch is microBatchSize x
    gradientAccumulationSteps x processes."""

    cel: ClassVar = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            "hyperparameters: write epochs or maxSteps, not both (neither means 3 epochs)",
        ),
    )

    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Passes over the training records; 3 if maxSteps is absent too.",
    )
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs.")
    learning_rate: float = Field(default=2e-4, gt=0, le=1, description="Peak learning rate.")
    scheduler: Scheduler = Field(
        default=Scheduler.COSINE, description="Learning rate after the warm-up: Cosine, Linear or Constant."
    )
    warmup_ratio: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0."
    )
    micro_batch_size: int = Field(
        default=1, ge=1, le=1024, description="Records per process in one forward and backward pass."
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096, description="Micro batches per optimizer step.")
    sequence_length: int = Field(
        default=1024, ge=16, le=1_048_576, description="Longest record, in tokens; longer ones are truncated."
    )
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000, description="Gradients are clipped to this norm.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    precision: Precision = Field(default=Precision.BF16, description="BF16 (mixed, fp32 master weights) or FP32.")
    seed: int = Field(
        default=42,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split, the order and the initial adapter weights.",
    )


class DeepSpeed(Model):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        description="What all processes share: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights."
    )


class Distributed(Model):
    """How more than one process shares the work."""

    deepspeed: DeepSpeed = Field(description="Train with DeepSpeed ZeRO.")


# --- life -------------------------------------------------------------------------------------


class TolerationOperator(StrEnum):
    """How a toleration matches a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint that the training pods accept, as in a pod's spec."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = Field(
        default=None, description="Key of the taint; absent with Exists means every taint."
    )
    operator: TolerationOperator | None = Field(default=None, description="Exists or Equal (Equal if absent).")
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Value of the taint, with Equal."
    )
    effect: TaintEffect | None = Field(default=None, description="Effect to match; every effect if absent.")


class Scheduling(Model):
    """Where the pods of all stages may run."""

    node_selector: dict[str, Annotated[str, StringConstraints(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels a node must have."
    )
    tolerations: list[Toleration] | None = Field(default=None, max_length=16, description="Taints the pods accept.")
    priority_class_name: Name | None = Field(default=None, description="PriorityClass of the pods.")


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


class MetricName(StrEnum):
    """A figure on the held-out records."""

    LOSS = "Loss"
    PERPLEXITY = "Perplexity"
    ROUGE_L = "RougeL"
    EXACT_MATCH = "ExactMatch"


class Gate(Model):
    """A bound that the tuned model must keep."""

    cel: ClassVar = (Rule("has(self.min) != has(self.max)", "gates: write exactly one of min and max for each metric"),)

    metric: MetricName = Field(description="Loss, Perplexity, RougeL or ExactMatch.")
    min: float | None = Field(default=None, description="The value must be at least this.")
    max: float | None = Field(default=None, description="The value must be at most this.")


class Evaluation(Model):
    """How base and tuned model are compared on the held-out records."""

    max_records: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Held-out records to evaluate at most; of more, hyperparameters.seed picks a random sample.",
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="Tokens to generate for each record.")
    sample_prompts: list[Annotated[str, StringConstraints(min_length=1, max_length=500)]] | None = Field(
        default=None,
        max_length=5,
        description="Questions that both models answer, for people to read in status.samples.",
    )
    gates: list[Gate] | None = Field(
        default=None,
        max_length=8,
        description="Bounds on the tuned model; one that is missed fails the job before anything is exported.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )


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
        Rule(
            "has(self.distributed) || (self.numNodes == 1 && (!has(self.numProcPerNode) || self.numProcPerNode == 1))",
            "more than one process needs `distributed: {deepspeed: {zeroStage: 0..3}}`: add it, or set numNodes and "
            "numProcPerNode to 1",
        ),
        whole_gpus("resourcesPerNode"),
        Rule(
            "has(self.distributed) || !has(self.resourcesPerNode) || !('nvidia.com/gpu' in self.resourcesPerNode)"
            " || string(self.resourcesPerNode['nvidia.com/gpu']) in ['0', '1'] || has(self.numProcPerNode)",
            "several GPUs per node run one process each: add `distributed: {deepspeed: {zeroStage: 0..3}}`",
        ),
        Rule(
            "!has(self.export) || !has(self.export.merge) || self.export.merge || has(self.method.lora)",
            "export.merge: false exports an adapter, which only method.lora trains: remove it or use lora",
        ),
    )

    base_model: BaseModelSource = Field(description="The model to start from.")
    dataset: Dataset = Field(description="The records to train on.")
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
    learning_rate: float | None = Field(default=None, ge=0, description="Learning rate of the last step.")
    summary: Text = Field(default="", description="All of it in one line, as `kubectl get` shows it.")


class CheckpointStatus(StatusModel):
    """The newest complete checkpoint."""

    step: int = Field(ge=0, description="Optimizer step at which it was saved.")


class DatasetStatus(StatusModel):
    """What the prepare stage found."""

    records: int = Field(ge=0, description="Records read.")
    train: int = Field(ge=0, description="Records to train on.")
    validation: int = Field(ge=0, description="Records held out.")
    truncated: int = Field(ge=0, description="Records longer than sequenceLength, which will be cut.")
    digest: Text = Field(description="SHA-256 of the file.")


class Restart(StatusModel):
    """A training attempt that was lost."""

    attempt: int = Field(ge=1, description="Number of the attempt that ended.")
    time: Text = Field(description="When it ended (RFC 3339).")
    pod: Text | None = Field(default=None, description="Pod that ended first.")
    node: Text | None = Field(default=None, description="Node of that pod.")
    rank: int | None = Field(default=None, description="Rank of that pod among the nodes.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    cause: Text = Field(description="Reason, in CamelCase.")


class MetricResult(StatusModel):
    """One figure on the held-out records."""

    metric: MetricName = Field(description="Name of the figure.")
    base: float = Field(description="Value of the base model.")
    tuned: float = Field(description="Value of the tuned model.")
    gate: Text | None = Field(default=None, description="The bound asked for, for example <= 1.5.")
    passed: bool | None = Field(default=None, description="Whether the tuned model keeps the bound.")


class Sample(StatusModel):
    """One question and both answers."""

    prompt: LongText = Field(description="The question.")
    base: LongText = Field(description="Answer of the base model.")
    tuned: LongText = Field(description="Answer of the tuned model.")


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


class FineTuneJob(Model):
    """A fine-tuning run: prepare, train, evaluate, export, register."""

    spec: FineTuneJobSpec = Field(description="What to train.")
    status: FineTuneJobStatus | None = Field(default=None, description="What the operator observed.")
