"""Whose child is it? Labels find, owner references decide."""

from typing import Any

import kopf
import pytest

from tunewright_api.names import LABEL_KIND, LABEL_NAME, LABEL_STAGE
from tunewright_operator.handlers.children import (
    INDEXES,
    VERSIONS,
    collect_children,
    owner_key,
    version_keys,
    wanted_versions,
)
from tunewright_operator.handlers.registry import SERVICES, _wake_services
from tunewright_operator.handlers.wakeups import Wakeups

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


# --- whom a change of a version wakes ---------------------------------------------------------

SERVED = {
    "metadata": {"namespace": "team", "name": "chat"},
    "spec": {"model": {"versionRef": {"name": "guide-v3"}}},
    "status": {"stable": {"version": "guide-v1"}, "candidate": {"version": "guide-v2"}},
}
BY_ALIAS = {
    "metadata": {"namespace": "team", "name": "search"},
    "spec": {"model": {"alias": {"modelName": "guide", "name": "production"}}},
}


def version(name: str = "guide-v1", model: str = "guide", namespace: str = "team", **parts: Any) -> Object:
    """A ModelVersion."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"modelName": model}} | parts


@pytest.mark.parametrize(
    ("changed", "by_name", "by_alias"),
    [
        pytest.param(version("guide-v1"), True, True, id="what is served"),
        pytest.param(version("guide-v2"), True, True, id="what it moves to"),
        pytest.param(version("guide-v3"), True, True, id="what is asked for"),
        pytest.param(version("guide-v4"), False, True, id="another version of the model"),
        pytest.param(version("poet-v1", model="poet"), False, False, id="another model"),
        pytest.param(version("guide-v1", namespace="other"), False, False, id="another namespace"),
    ],
)
def test_a_version_is_found_by_those_who_ask_for_it_alone(changed: Object, by_name: bool, by_alias: bool) -> None:
    keys = set(version_keys(changed))
    assert (bool(keys & wanted_versions(SERVED)), bool(keys & wanted_versions(BY_ALIAS))) == (by_name, by_alias)


async def test_only_a_change_that_a_service_must_know_of_wakes_it() -> None:
    wakeups, memo = Wakeups(), kopf.Memo()
    services = {("version", "team", "guide-v1"): ["chat"], ("model", "team", "guide"): ["search", "chat"]}
    with (
        wakeups.listen(("InferenceService", "team", "chat")) as chat,
        wakeups.listen(("InferenceService", "team", "search")) as search,
        wakeups.listen(("InferenceService", "team", "other")) as other,
    ):

        async def woken(type: str | None = "MODIFIED", **parts: Any) -> tuple[bool, bool, bool]:
            events = (chat, search, other)
            for event in events:
                event.clear()
            await _wake_services(
                wakeups, version(**parts), namespace="team", memo=memo, type=type, **{SERVICES: services}
            )
            return tuple(event.is_set() for event in events)

        both, nobody = (True, True, False), (False, False, False)
        verified = {"type": "Verified", "status": "True"}
        assert await woken(None) == both, "the first list"
        assert await woken(None) == nobody, "a relist"
        assert await woken(status={"message": "verifying"}) == nobody
        assert await woken(status={"conditions": [verified]}) == both
        assert await woken(status={"conditions": [verified, {"type": "Ready", "status": "True"}]}) == nobody
        assert await woken(status={"conditions": [verified], "verifiedDigest": "sha256:1"}) == both
        assert await woken(spec={"modelName": "guide", "aliases": ["production"]}) == both
        assert await woken("DELETED", spec={"modelName": "guide", "aliases": ["production"]}) == both
