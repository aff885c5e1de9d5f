"""The ModelVersion that a finished job registers. It outlives the job, so the job is named but does not own it."""

from collections.abc import Sequence
from typing import Any

from tunewright_api.evaluation import MetricResult
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.modelversion import (
    Artifact,
    ArtifactFormat,
    BaseModelRef,
    JobRef,
    Lineage,
    ModelKind,
    ModelVersionSpec,
)
from tunewright_api.names import API_VERSION
from tunewright_api.results import ExportResult
from tunewright_operator.manifests.common import owner_labels
from tunewright_operator.manifests.trainer_config import artifact_uri

Manifest = dict[str, Any]


def version_name(spec: FineTuneJobSpec) -> str:
    """MODELNAME-VERSION."""
    return f"{spec.output.model_name}-{spec.output.version}"


def build_model_version(
    owner: Manifest,
    spec: FineTuneJobSpec,
    export: ExportResult,
    *,
    dataset_digest: str | None,
    image: str,
    evaluation: Sequence[MetricResult],
) -> Manifest:
    """The record of what the job made."""
    metadata = owner["metadata"]
    record = ModelVersionSpec(
        model_name=spec.output.model_name,
        version=spec.output.version,
        kind=ModelKind(export.kind),
        adapter_type=export.adapter_type if export.kind == ModelKind.ADAPTER else None,
        artifact=Artifact(
            uri=artifact_uri(spec.output),
            digest=export.digest,
            format=ArtifactFormat.SAFETENSORS,
            size_bytes=export.size_bytes,
        ),
        base_model=BaseModelRef(uri=spec.base_model.uri, revision=spec.base_model.revision),
        chat_template_digest=export.chat_template_digest,
        lineage=Lineage(
            job_ref=JobRef(name=metadata["name"], uid=metadata["uid"]),
            dataset_digest=dataset_digest,
            image=image,
        ),
        evaluation=list(evaluation) or None,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": version_name(spec),
            "namespace": metadata["namespace"],
            "labels": owner_labels(owner),
        },
        "spec": record.to_dict(),
    }


def registered_by(version: Manifest) -> str | None:
    """UID of the FineTuneJob that made a ModelVersion; None for one made by hand."""
    job = (version.get("spec", {}).get("lineage") or {}).get("jobRef") or {}
    return job.get("uid")
