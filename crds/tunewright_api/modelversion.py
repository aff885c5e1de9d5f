"""ModelVersion: an immutable record of an artifact, with a person's decision about it."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from tunewright_api.base import (
    Digest,
    LongText,
    Model,
    Name,
    ObjectName,
    Rule,
    ShortName,
    StatusModel,
    Text,
    VersionName,
)
from tunewright_api.conditions import Condition
from tunewright_api.evaluation import MetricResult
from tunewright_api.method import AdapterType
from tunewright_api.uris import ModelUri, PvcUri


class ArtifactFormat(StrEnum):
    """Layout of the artifact on disk."""

    SAFETENSORS = "Safetensors"


class Artifact(Model):
    """The files of the version."""

    uri: PvcUri = Field(description="Directory with manifest.json: pvc://CLAIM/PATH.")
    digest: Digest = Field(description="sha256: digest over the manifest's files; see docs/reference/artifact.md.")
    format: ArtifactFormat = Field(description="Layout of the weights.")
    size_bytes: int = Field(ge=0, description="Sum of the sizes of all files, in bytes.")


class ModelKind(StrEnum):
    """Whether the version can be served by itself."""

    FULL = "Full"
    ADAPTER = "Adapter"


class BaseModelRef(Model):
    """The model that the version was tuned from."""

    uri: ModelUri = Field(description="baseModel.uri of the job.")
    revision: Text | None = Field(default=None, description="baseModel.revision of the job.")


class JobRef(Model):
    """The FineTuneJob that made the version."""

    name: ObjectName = Field(description="Name of the FineTuneJob.")
    uid: Text = Field(description="UID of the FineTuneJob.")


class Lineage(Model):
    """Where the version comes from."""

    job_ref: JobRef | None = Field(default=None, description="The FineTuneJob that made the version.")
    dataset_digest: Digest | None = Field(default=None, description="SHA-256 of the dataset file.")
    image: Text | None = Field(default=None, description="Trainer image that made the version.")


class Decision(StrEnum):
    """What a person decided."""

    APPROVED = "Approved"
    REJECTED = "Rejected"


class Approval(Model):
    """A decision, bound to the person who took it and to the digest that person saw. Only users with the verb
    `approve` on modelversions can write it, and only under their own name."""

    decision: Decision = Field(description="Approved or Rejected.")
    approved_by: Text = Field(description="User name of the person who decides; the apiserver checks it.")
    digest: Digest = Field(description="spec.artifact.digest, as the person saw it.")
    reason: Text | None = Field(default=None, description="Why.")


class ModelVersionSpec(Model):
    """The record. Everything but aliases and approval is immutable."""

    immutable: ClassVar = (
        "modelName",
        "version",
        "artifact",
        "kind",
        "adapterType",
        "baseModel",
        "chatTemplateDigest",
        "lineage",
        "evaluation",
    )
    immutable_advice: ClassVar = "is immutable: register a ModelVersion with a new version"
    cel: ClassVar = (
        Rule(
            "!has(self.approval) || self.approval.digest == self.artifact.digest",
            "approval.digest must be spec.artifact.digest: approve what you have seen",
        ),
        Rule(
            "self.kind == 'Adapter' || !has(self.adapterType)",
            "adapterType describes a version of kind Adapter: remove it, or set kind to Adapter",
        ),
    )

    model_name: ShortName = Field(description="Name of the model, shared by all its versions.")
    version: VersionName = Field(description="Version of the model.")
    kind: ModelKind = Field(description="Full (can be served by itself) or Adapter.")
    adapter_type: AdapterType | None = Field(
        default=None,
        description="What an Adapter is: Lora, Dora, PrefixTuning or LlamaAdapter. vLLM can load Lora only.",
    )
    artifact: Artifact = Field(description="The files of the version.")
    base_model: BaseModelRef = Field(description="The model that the version was tuned from.")
    chat_template_digest: Digest | None = Field(default=None, description="SHA-256 of the chat template.")
    lineage: Lineage | None = Field(default=None, description="Where the version comes from.")
    evaluation: list[MetricResult] | None = Field(
        default=None,
        max_length=16,
        description="Figures on the held-out records.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )
    aliases: list[Name] | None = Field(
        default=None,
        max_length=16,
        description="Names that may move from version to version of a model, such as production: an InferenceService "
        "that follows an alias rolls over when it moves.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    approval: Approval | None = Field(default=None, description="The decision; absent until somebody decides.")


class ModelVersionStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int = Field(default=-1, description="metadata.generation this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Verified, Approved, Servable (of adapters), Reconciling, Stalled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    message: LongText | None = Field(default=None, description="The one sentence that matters now.")
    verified_digest: Digest | None = Field(default=None, description="Digest that was recomputed from the files.")


class ModelVersion(Model):
    """An evaluated, verified and approved model."""

    cel: ClassVar = (
        Rule(
            "self.metadata.name == self.spec.modelName + '-' + self.spec.version",
            "metadata.name must be spec.modelName + '-' + spec.version",
        ),
    )

    spec: ModelVersionSpec = Field(description="The record.")
    status: ModelVersionStatus | None = Field(default=None, description="What the operator observed.")
