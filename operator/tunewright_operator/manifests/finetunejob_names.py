"""Names and labels of a FineTuneJob's children."""

from typing import Any

from tunewright_api.names import LABEL_ATTEMPT, LABEL_OWNER_UID, LABEL_STAGE, Stage
from tunewright_operator.manifests.common import owner_labels
from tunewright_operator.manifests.naming import child_name

Manifest = dict[str, Any]


def config_name(owner: Manifest) -> str:
    """ConfigMap NAME-config."""
    return child_name(owner["metadata"]["name"], "config")


def network_name(owner: Manifest) -> str:
    """Headless Service and NetworkPolicy NAME-train."""
    return child_name(owner["metadata"]["name"], Stage.TRAIN.value)


def stage_job_name(owner: Manifest, stage: Stage, attempt: int, nodes: int) -> str:
    """NAME-STAGE, and NAME-train-ATTEMPT: short enough for -INDEX to be a host name behind it."""
    name = owner["metadata"]["name"]
    if stage is not Stage.TRAIN:
        return child_name(name, stage.value)
    index = f"-{nodes - 1}"
    return child_name(name, f"{stage.value}-{attempt}{index}").removesuffix(index)


def rank_zero_host(owner: Manifest, attempt: int, nodes: int) -> str:
    """Host name of the pod with rank 0; Indexed Jobs call their pods JOB-INDEX."""
    job = stage_job_name(owner, Stage.TRAIN, attempt, nodes)
    return f"{job}-0.{network_name(owner)}.{owner['metadata']['namespace']}.svc"


def stage_labels(owner: Manifest, stage: Stage, attempt: int) -> dict[str, str]:
    """Labels of a stage's Job and pods."""
    labels = owner_labels(owner) | {LABEL_STAGE: stage.value, LABEL_OWNER_UID: owner["metadata"]["uid"]}
    return labels | {LABEL_ATTEMPT: str(attempt)} if stage is Stage.TRAIN else labels
