"""Configuration file of the trainer image: what the operator mounts at /etc/tunewright/config.json.

One file serves every stage of a job. All paths are absolute and inside the container.
"""

from typing import ClassVar

from pydantic import Field

from tunewright_api.base import Digest, Model, Rule
from tunewright_api.dataset import (
    FORMAT_RULES,
    BadRowPolicy,
    DatasetFormat,
    DuplicatePolicy,
    LongRecordPolicy,
    long_record_policy,
)
from tunewright_api.distributed import Distributed
from tunewright_api.evaluation import Evaluation
from tunewright_api.finetunejob import Checkpoint, Export
from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.method import Method
from tunewright_api.names import ENV_RENDEZVOUS_ADDRESS, NVME_MOUNT, PORT_RENDEZVOUS, PORT_TRAINER
from tunewright_api.objective import Objective


class JobIdentity(Model):
    """The FineTuneJob this run belongs to; written into the artifact and every log line."""

    namespace: str = Field(description="Namespace of the FineTuneJob.")
    name: str = Field(description="Name of the FineTuneJob.")
    uid: str = Field(description="UID of the FineTuneJob.")


class ModelInput(Model):
    """The model to start from: a local directory, or a hub model that prepare downloads into the work directory."""

    cel: ClassVar = (
        Rule(
            "has(self.path) || has(self.hubId)",
            "model: write path, the directory of the model, or hubId for one that prepare downloads",
        ),
    )

    uri: str = Field(description="baseModel.uri, for the record.")
    path: str | None = Field(default=None, description="Model directory; absent for an hf:// model.")
    hub_id: str | None = Field(default=None, description="ORG/NAME of an hf:// model.")
    revision: str | None = Field(default=None, description="Git revision of an hf:// model.")


class MixtureInput(Model):
    """One of several datasets."""

    path: str = Field(description="File or directory, or an s3:// URI.")
    format: DatasetFormat = Field(description="Shape of one row.")
    weight: int = Field(default=1, ge=1, le=1000, description="Share of the positions, relative to the other parts.")


class DatasetInput(Model):
    """The records: path and format, or mixture."""

    cel: ClassVar = (
        Rule(
            "has(self.path) != has(self.mixture) && has(self.path) == has(self.format)",
            "dataset: write path and format for one dataset, or mixture for several",
        ),
        *FORMAT_RULES,
    )

    path: str | None = Field(default=None, description="File or directory, or an s3:// URI.")
    format: DatasetFormat | None = Field(default=None, description="Shape of one row.")
    mixture: list[MixtureInput] | None = Field(default=None, description="Several datasets at fixed shares.")
    ignore_fields: list[str] | None = Field(default=None, description="Fields of the rows that do not count.")
    validation_percent: int = Field(ge=1, le=50, description="Share of the distinct records held out, in percent.")
    on_bad_row: BadRowPolicy = Field(default=BadRowPolicy.FAIL, description="Of wrong rows.")
    on_long_record: LongRecordPolicy | None = Field(default=None, description="Of records longer than sequenceLength.")
    on_duplicate: DuplicatePolicy = Field(default=DuplicatePolicy.KEEP, description="Of rows that repeat another.")

    def long_records(self, dataset_format: DatasetFormat) -> LongRecordPolicy:
        """What happens to records of this format that are longer than sequenceLength."""
        return long_record_policy(self.on_long_record, dataset_format)

    @property
    def sources(self) -> list[MixtureInput]:
        """The parts of the mixture, or the one dataset; empty if neither is there."""
        if self.mixture or not (self.path and self.format):
            return self.mixture or []
        return [MixtureInput(path=self.path, format=self.format)]


class EvaluationInputs(Model):
    """Where evaluation.general and evaluation.harness are."""

    general: str | None = Field(default=None, description="File of evaluation.general.uri.")
    harness: str | None = Field(default=None, description="Directory of evaluation.harness.uri.")


class ObjectiveInputs(Model):
    """Where the models and records that spec.objective names are."""

    teacher: str | None = Field(default=None, description="Directory of distillation.teacher.uri.")
    reference: str | None = Field(default=None, description="File of ewc.reference.uri.")


class Rendezvous(Model):
    """Where the pods of a run meet; the node rank is the environment variable JOB_COMPLETION_INDEX."""

    nodes: int = Field(ge=1, description="Pods.")
    processes_per_node: int = Field(ge=1, description="Processes per pod.")
    gpus_per_node: int = Field(default=0, ge=0, description="GPUs that each training pod asks for.")
    address: str = Field(
        default="127.0.0.1",
        description="Host name of the pod with rank 0, unless the environment variable "
        f"{ENV_RENDEZVOUS_ADDRESS} names it.",
    )
    port: int = Field(default=PORT_RENDEZVOUS, description="Port of the rendezvous.")


class Directories(Model):
    """Where the stages read and write."""

    work: str = Field(description="Scratch of this job, shared by its stages: split, checkpoints, trained weights.")
    artifact: str = Field(description="Directory that export fills, complete or absent.")
    nvme: str = Field(default=NVME_MOUNT, description="The disk of distributed.deepspeed.nvme in this pod.")


def _given(part: str, inputs: str) -> Rule:
    """A part of the spec needs its file, and a file its part: neither is ignored in silence."""
    steps = part.split(".")
    there = " && ".join(f"has(self.{'.'.join(steps[: depth + 1])})" for depth in range(1, len(steps)))
    return Rule(
        f"({there}) == has(self.{inputs})",
        f"{inputs} is the place of {part}: write both, or neither",
    )


class TrainerConfig(Model):
    """The whole run, as prepare, train, evaluate and export read it. The rules of FineTuneJobSpec hold for it too."""

    cel: ClassVar = (
        _given("objective.supervised.distillation", "objectiveInputs.teacher"),
        _given("objective.supervised.ewc", "objectiveInputs.reference"),
        _given("evaluation.general", "evaluationInputs.general"),
        _given("evaluation.harness", "evaluationInputs.harness"),
    )

    job: JobIdentity = Field(description="The FineTuneJob.")
    model: ModelInput = Field(description="The model to start from.")
    dataset: DatasetInput = Field(description="The records.")
    objective: Objective = Field(default_factory=Objective, description="spec.objective.")
    objective_inputs: ObjectiveInputs = Field(
        default_factory=ObjectiveInputs, description="Files and directories that spec.objective names."
    )
    method: Method = Field(description="spec.method.")
    hyperparameters: Hyperparameters = Field(description="spec.hyperparameters.")
    distributed: Distributed | None = Field(default=None, description="spec.distributed.")
    rendezvous: Rendezvous = Field(description="Where the training pods meet.")
    checkpoint: Checkpoint = Field(description="spec.checkpoint.")
    evaluation: Evaluation = Field(description="spec.evaluation.")
    evaluation_inputs: EvaluationInputs = Field(
        default_factory=EvaluationInputs, description="Files and directories that spec.evaluation names."
    )
    export: Export = Field(description="spec.export.")
    directories: Directories = Field(description="Where the stages read and write.")
    port: int = Field(default=PORT_TRAINER, description="Port of /metrics and /progress on rank 0.")


class VerifyConfig(Model):
    """Configuration of the verify stage: recompute an artifact's digest."""

    artifact: str = Field(description="Directory with manifest.json.")
    digest: Digest = Field(description="Digest that the files must have.")
