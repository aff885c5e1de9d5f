"""Whose child is it? Labels find, owner references decide."""

from typing import Any

from tunewright_api.names import LABEL_KIND, LABEL_NAME, LABEL_STAGE
from tunewright_operator.handlers.children import INDEXES, VERSIONS, collect_children, owner_key

Object = dict[str, Any]

KEY = ("FineTuneJob", "team", "guide")


def child(kind: str, name: str, owner: str, owner_kind: str = "FineTuneJob") -> Object:
    """An object with one owner."""
    labels = {LABEL_KIND: "FineTuneJob", LABEL_NAME: "guide"}
    reference = {"kind": owner_kind, "name": f"{owner}-name", "uid": owner}
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "labels": labels,
        "ownerReferences": [reference],
    }
    return {"kind": kind, "metadata": metadata}


def indexes(**found: list[Object]) -> dict[str, dict[tuple[str, str, str], list[Object]]]:
    """All indexes, these filled."""
    return {name: {KEY: found[name]} if name in found else {} for name in (*INDEXES, VERSIONS)}


def test_the_labels_name_the_owner() -> None:
    assert owner_key(child("Job", "guide-prepare", "new")) == KEY
    assert owner_key({"metadata": {"namespace": "team", "labels": None}}) is None


def test_children_of_a_deleted_object_of_the_same_name_are_not_ours() -> None:
    old, new = child("Job", "guide-train-1", "old"), child("Job", "guide-prepare", "new")
    pods = [
        child("Pod", "old", "uid-guide-train-1", "Job"),
        child("Pod", "new", "uid-guide-prepare", "Job"),
    ]
    children = collect_children("new", KEY, indexes(jobs=[old, new], pods=pods))
    assert children.jobs == (new,)
    assert children.pods == (pods[1],)
    assert children.orphans == (), "no pods of a stage"


def test_pods_of_a_stage_whose_job_is_gone_are_orphans() -> None:
    pod = child("Pod", "guide-train-1-0", "uid-guide-train-1", "Job")
    pod["metadata"]["labels"][LABEL_STAGE] = "train"
    children = collect_children("new", KEY, indexes(pods=[pod]))
    assert (children.pods, children.orphans) == ((), (pod,))


def test_pods_of_a_deployment_are_found_through_the_name_of_their_replica_set() -> None:
    deployment = child("Deployment", "guide-name", "new")
    pod = child("Pod", "a", "guide", "ReplicaSet")
    pod["metadata"]["ownerReferences"][0]["name"] = "guide-name-5d4f"
    stranger = child("Pod", "b", "other", "ReplicaSet")
    children = collect_children("new", KEY, indexes(deployments=[deployment], pods=[pod, stranger]))
    assert children.pods == (pod,)


def test_a_service_sees_every_version_of_its_namespace() -> None:
    version = {"kind": "ModelVersion", "metadata": {"name": "guide-v1", "namespace": "team", "uid": "1"}}
    found = indexes() | {VERSIONS: {"team": [version], "other": [version | {"metadata": {}}]}}
    assert collect_children("new", ("InferenceService", "team", "guide"), found).versions == (version,)
    assert collect_children("new", KEY, found).versions == ()
