"""InferenceService: every state of the contract, rollouts without a gap, truthful failures, no write once settled."""

import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kstatus import KStatus, kstatus
from tests.restricted import violations
from tests.serving import (
    CONFIG,
    DIGEST,
    NOW,
    FakeKube,
    approved,
    check_golden,
    claim,
    conditions,
    decision,
    pod,
    revisions,
    run_deployment,
    selected,
    settle,
    terminated,
    turn,
    version,
)
from tests.serving import service as build_service
from tunewright_api.inferenceservice import InferenceServiceStatus
from tunewright_api.names import LABEL_REVISION, LABEL_VERSION
from tunewright_api.results import Outcome, StageResult
from tunewright_operator.kube.errors import Forbidden, Invalid
from tunewright_operator.policies.rollout import RETIRE_SECONDS
from tunewright_operator.reconcile.inferenceservice import reconcile
from tunewright_operator.reconcile.result import Children

Object = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
URL = "http://guide.team.svc.cluster.local/v1"
VERIFIED = {"observedGeneration": 1, "verifiedDigest": DIGEST}


def world(*objects: Object) -> FakeKube:
    """An apiserver with the claim, an approved version and these objects."""
    kube = FakeKube()
    kube.put(claim(), approved(), *objects)
    return kube


def tampered() -> Object:
    """An approved version whose files were changed."""
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Verified",
                "status": "False",
                "reason": "DigestMismatch",
                "message": "model/config.json was changed after export",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    return version(approval=decision(), status=status)


# --- states -----------------------------------------------------------------------------------

Play = Callable[[FakeKube, Object], Awaitable[None]]


async def nothing(kube: FakeKube, obj: Object) -> None:
    """Nothing happens."""


def pods(ready: int, *extra: Object, **deployment_conditions: Object) -> Play:
    """The revision's Deployment runs `ready` pods, next to these pods in trouble."""

    async def play(kube: FakeKube, obj: Object) -> None:
        await settle(reconcile, kube, obj)
        (revision,) = revisions(kube)
        run_deployment(kube, revision, ready=ready, **deployment_conditions)
        for one in extra:
            labels = kube.of("Deployment")[0]["spec"]["template"]["metadata"]["labels"]
            kube.put(one | {"metadata": one["metadata"] | {"labels": labels}})

    return play


def serving_then(change: Callable[[FakeKube, Object], None]) -> Play:
    """The service answers, then something changes."""

    async def play(kube: FakeKube, obj: Object) -> None:
        await pods(1)(kube, obj)
        await settle(reconcile, kube, obj)
        change(kube, obj)

    return play


def crashed(code: int, *, message: str = "", reason: str = "Error", restarts: int = 1) -> Object:
    """A pod whose container ended and waits to be started again."""
    return pod(
        "guide-0",
        {},
        restarts=restarts,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        lastState=terminated(code, message, reason),
    )


def ours(reason: str, message: str) -> str:
    """Termination message of our server."""
    return StageResult(outcome=Outcome.FAILED, reason=reason, message=message).to_message()


def waiting(reason: str, message: str = "") -> Object:
    """A pod whose container was never started."""
    return pod("guide-0", {}, state={"waiting": {"reason": reason, "message": message}})


def behind_init(reason: str, *, restarts: int = 0, **states: Object) -> Object:
    """A pod whose container waits for an init container, which waits, too."""
    one = waiting("PodInitializing")
    init = {"name": "istio-validation", "image": "istio/proxyv2:1", "restartCount": restarts, "ready": False}
    one["status"]["initContainerStatuses"] = [init | {"state": {"waiting": {"reason": reason}}} | states]
    return one


def unscheduled() -> Object:
    """A pod without a node."""
    one = pod("guide-0", {})
    one["status"] = {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            }
        ],
    }
    return one


def replace_version(new: Object | None) -> Callable[[FakeKube, Object], None]:
    """The ModelVersion changes, or is deleted."""

    def change(kube: FakeKube, obj: Object) -> None:
        kube.objects.pop(("ModelVersion", "guide-v1"))
        if new:
            kube.put(new)

    return change


def move_to(name: str, *objects: Object) -> Callable[[FakeKube, Object], None]:
    """spec.model.versionRef changes."""

    def change(kube: FakeKube, obj: Object) -> None:
        kube.put(*objects)
        obj["spec"]["model"]["versionRef"]["name"] = name
        obj["metadata"]["generation"] += 1

    return change


@dataclass(frozen=True)
class Case:
    """What is there, what happens, and what status must say."""

    want: dict[str, tuple[str, str]]
    kstatus: KStatus
    says: str
    play: Play = nothing
    model: Object | None = field(default_factory=approved)
    spec: Object = field(default_factory=dict)
    deployments: int = 1
    url: bool = False
    failure: tuple[str, int | None] | None = None


ACCEPTED = {"Accepted": ("True", "Accepted")}
SERVING = ACCEPTED | {"Ready": ("True", "Serving")}
ROLLED_BACK = SERVING | {"Degraded": ("True", "RolledBack"), "Stalled": ("True", "RolledBack")}


def progressing(reason: str) -> dict[str, tuple[str, str]]:
    return ACCEPTED | {"Ready": ("False", reason), "Reconciling": ("True", reason)}


def stalled(reason: str) -> dict[str, tuple[str, str]]:
    return ACCEPTED | {"Ready": ("False", reason), "Stalled": ("True", reason)}


def refused(reason: str) -> dict[str, tuple[str, str]]:
    return {"Accepted": ("False", reason), "Ready": ("False", reason), "Stalled": ("True", reason)}


CASES = {
    "the version does not exist": Case(
        progressing("ModelVersionNotFound"),
        KStatus.IN_PROGRESS,
        "there is no ModelVersion guide-v1 in namespace team",
        model=None,
        deployments=0,
    ),
    "the version is not verified yet": Case(
        progressing("NotVerified"),
        KStatus.IN_PROGRESS,
        "is not verified yet",
        model=version(approval=decision()),
        deployments=0,
    ),
    "nobody approved the version": Case(
        progressing("NotApproved"),
        KStatus.IN_PROGRESS,
        "kubectl -n team describe modelversion guide-v1",
        model=version(status=VERIFIED),
        deployments=0,
    ),
    "the version was rejected": Case(
        refused("Rejected"),
        KStatus.FAILED,
        "was rejected by olivia@example.com (it answers well): refer to another version",
        model=version(approval=decision("Rejected"), status=VERIFIED),
        deployments=0,
    ),
    "the version's files were changed": Case(
        refused("DigestMismatch"), KStatus.FAILED, "model/config.json was changed", model=tampered(), deployments=0
    ),
    "the version is an adapter": Case(
        refused("AdapterNotServable"),
        KStatus.FAILED,
        "refer to a version of kind Full",
        model=approved(kind="Adapter"),
        deployments=0,
    ),
    "the version is a prefix": Case(
        refused("AdapterNotServable"),
        KStatus.FAILED,
        "is a PrefixTuning adapter, which cannot be merged into its base, and vLLM does not serve it",
        model=approved(kind="Adapter", adapterType="PrefixTuning"),
        deployments=0,
    ),
    "the artifact's claim does not exist": Case(
        progressing("ClaimNotFound"),
        KStatus.IN_PROGRESS,
        "no PersistentVolumeClaim",
        model=approved(artifact={"uri": "pvc://gone/m", "digest": DIGEST, "format": "Safetensors", "sizeBytes": 1}),
        deployments=0,
    ),
    "the first pod loads the model": Case(
        progressing("Loading"), KStatus.IN_PROGRESS, "0 of 1 pods of guide-v1 answered a completion", pods(0)
    ),
    "it answers": Case(SERVING, KStatus.CURRENT, f"guide-v1 answers at {URL} as model guide", pods(1), url=True),
    "one of three pods answers": Case(
        SERVING | {"Reconciling": ("True", "Loading")},
        KStatus.IN_PROGRESS,
        "1 of 3 pods",
        pods(1),
        spec={"replicas": 3},
        url=True,
    ),
    "scaled to zero": Case(ACCEPTED, KStatus.CURRENT, "scaled to zero", pods(0), spec={"replicas": 0}),
    "no node has the GPUs": Case(
        progressing("Unschedulable"), KStatus.IN_PROGRESS, "Insufficient nvidia.com/gpu", pods(0, unscheduled())
    ),
    "no node took the pod for an hour": Case(
        stalled("Unschedulable"),
        KStatus.FAILED,
        "lower spec.resources",
        pods(0, unscheduled(), Progressing={"status": "False", "reason": "ProgressDeadlineExceeded"}),
    ),
    "it loads for more than an hour": Case(
        stalled("ProgressDeadlineExceeded"),
        KStatus.FAILED,
        "nothing changed for more than an hour",
        pods(0, Progressing={"status": "False", "reason": "ProgressDeadlineExceeded"}),
    ),
    "the image cannot be pulled": Case(
        progressing("ImageNotPulled"),
        KStatus.IN_PROGRESS,
        "image tunewright/server:test cannot be pulled (not found)",
        pods(0, waiting("ImagePullBackOff", "not found")),
    ),
    "the image is nowhere and never pulled": Case(
        stalled("ImageNotPulled"), KStatus.FAILED, "cannot be pulled", pods(0, waiting("ErrImageNeverPull"))
    ),
    "the configuration is not there": Case(
        progressing("CreateContainerConfigError"),
        KStatus.IN_PROGRESS,
        'the container cannot be created (configmap "guide" not found): once that is mended, the node tries again by '
        "itself",
        pods(0, waiting("CreateContainerConfigError", 'configmap "guide" not found')),
    ),
    "vLLM refuses an argument": Case(
        stalled("InvalidConfig"),
        KStatus.FAILED,
        "max_model_len is larger than the model's 2048",
        pods(0, crashed(64, message=ours("InvalidConfig", "max_model_len is larger than the model's 2048"))),
        failure=("InvalidConfig", 64),
    ),
    "the server finds other files": Case(
        stalled("DigestMismatch"),
        KStatus.FAILED,
        "model/a.safetensors was changed",
        pods(0, crashed(77, message=ours("DigestMismatch", "model/a.safetensors was changed"))),
        failure=("DigestMismatch", 77),
    ),
    "out of memory once": Case(
        progressing("OutOfMemory"),
        KStatus.IN_PROGRESS,
        "raise spec.resources.memory",
        pods(0, crashed(137, reason="OOMKilled")),
        failure=("OutOfMemory", 137),
    ),
    "out of memory again and again": Case(
        stalled("OutOfMemory"),
        KStatus.FAILED,
        "raise spec.resources.memory",
        pods(0, crashed(137, reason="OOMKilled", restarts=4)),
        failure=("OutOfMemory", 137),
    ),
    "it crashed once": Case(
        progressing("ContainerFailed"),
        KStatus.IN_PROGRESS,
        "exit code 1; its last words: RuntimeError: no kernel",
        pods(0, crashed(1, message="Traceback\n  File x\nRuntimeError: no kernel\n")),
        failure=("ContainerFailed", 1),
    ),
    "it crashes in a loop": Case(
        stalled("ContainerFailed"),
        KStatus.FAILED,
        "kubectl -n team logs guide-0 --previous",
        pods(0, crashed(139, restarts=3)),
        failure=("ContainerFailed", 139),
    ),
    "an init container of the mesh crashes": Case(
        progressing("ContainerFailed"),
        KStatus.IN_PROGRESS,
        "pod guide-0: init container istio-validation ended with exit code 64. What to do: read its log: kubectl "
        "-n team logs guide-0 -c istio-validation --previous",
        pods(0, behind_init("CrashLoopBackOff", restarts=1, lastState=terminated(64))),
        failure=("ContainerFailed", 64),
    ),
    "an init container crashes in a loop": Case(
        stalled("ContainerFailed"),
        KStatus.FAILED,
        "init container istio-validation ended with exit code 126",
        pods(0, behind_init("CrashLoopBackOff", restarts=9, lastState=terminated(126))),
        failure=("ContainerFailed", 126),
    ),
    "the image of an init container cannot be pulled": Case(
        progressing("ImageNotPulled"),
        KStatus.IN_PROGRESS,
        "image istio/proxyv2:1 cannot be pulled",
        pods(0, behind_init("ImagePullBackOff")),
    ),
    "its volume is not attached yet": Case(
        progressing("Loading"),
        KStatus.IN_PROGRESS,
        "0 of 1 pods of guide-v1 answered a completion; the containers of others are being created",
        pods(0, waiting("ContainerCreating")),
    ),
    "a quota refuses the pods": Case(
        progressing("PodsRefused"),
        KStatus.IN_PROGRESS,
        "exceeded quota",
        pods(0, ReplicaFailure={"status": "True", "reason": "FailedCreate", "message": "exceeded quota"}),
    ),
    "all but one of the pods crash": Case(
        SERVING | {"Stalled": ("True", "ContainerFailed")},
        KStatus.FAILED,
        "exit code 1",
        pods(2, crashed(1, restarts=5)),
        spec={"replicas": 3},
        url=True,
        failure=("ContainerFailed", 1),
    ),
    "it no longer answers": Case(
        progressing("Loading"),
        KStatus.IN_PROGRESS,
        "0 of 1 pods",
        serving_then(lambda kube, obj: run_deployment(kube, revisions(kube)[0], ready=0)),
    ),
    "the approval is taken back": Case(
        progressing("NotApproved"),
        KStatus.IN_PROGRESS,
        "waits for approval",
        serving_then(replace_version(version(status=VERIFIED))),
        deployments=0,
    ),
    "the version is rejected while it serves": Case(
        refused("Rejected"),
        KStatus.FAILED,
        "was rejected",
        serving_then(replace_version(version(approval=decision("Rejected"), status=VERIFIED))),
        deployments=0,
    ),
    "the version is deleted while it serves": Case(
        progressing("ModelVersionNotFound"),
        KStatus.IN_PROGRESS,
        "there is no ModelVersion",
        serving_then(replace_version(None)),
        deployments=0,
    ),
    "the next version loads": Case(
        SERVING | {"Reconciling": ("True", "Starting")},
        KStatus.IN_PROGRESS,
        "creating the pods of guide-v2",
        serving_then(move_to("guide-v2", approved("guide-v2"))),
        deployments=2,
        url=True,
    ),
    "the next version is not approved": Case(
        SERVING | {"Reconciling": ("True", "NotApproved")},
        KStatus.IN_PROGRESS,
        "guide-v2 waits for approval",
        serving_then(move_to("guide-v2", version("guide-v2", status=VERIFIED))),
        url=True,
    ),
    "the next version is an adapter": Case(
        {"Accepted": ("False", "AdapterNotServable"), "Ready": ("True", "Serving")}
        | {"Stalled": ("True", "AdapterNotServable")},
        KStatus.FAILED,
        "guide-v2 is an adapter",
        serving_then(move_to("guide-v2", approved("guide-v2", kind="Adapter"))),
        url=True,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_status_of_every_state(case: Case) -> None:
    kube, obj = FakeKube(), build_service(**case.spec)
    kube.put(claim())
    if case.model:
        kube.put(case.model)
    await case.play(kube, obj)
    if case.play is not nothing and "creating" not in case.says:
        await settle(reconcile, kube, obj)
    else:
        await turn(reconcile, kube, obj)
    status = obj["status"]
    assert conditions(obj) == case.want
    assert kstatus(obj) is case.kstatus
    assert case.says in status["message"]
    assert len(kube.of("Deployment")) == case.deployments
    assert status.get("url") == (URL if case.url else None)
    failure = status.get("lastFailure")
    assert ((failure["reason"], failure["exitCode"]) if failure else None) == case.failure
    assert all(c["observedGeneration"] == obj["metadata"]["generation"] for c in status["conditions"])
    InferenceServiceStatus.model_validate(status)


@pytest.mark.parametrize("amount", ["1.0", "1k", 2])
async def test_an_amount_of_gpus_is_read_as_kubernetes_reads_it(amount: str | int) -> None:
    """Objects of an older schema may say it so."""
    kube, obj = world(), build_service(resources={"nvidia.com/gpu": amount})
    await turn(reconcile, kube, obj)
    (config,) = kube.of("ConfigMap")
    assert json.loads(config["data"]["config.json"])["gpus"] == {"1.0": 1, "1k": 1000, 2: 2}[amount]


async def test_a_name_that_dns_does_not_allow_is_refused() -> None:
    obj = build_service()
    obj["metadata"]["name"] = "7b"
    await turn(reconcile, world(), obj)
    assert conditions(obj) == refused("InvalidName")


async def test_a_spec_of_another_schema_is_refused_and_what_serves_goes_on() -> None:
    kube, obj = world(), build_service()
    await pods(1)(kube, obj)
    await settle(reconcile, kube, obj)
    obj["spec"]["engine"] = {"dtype": "Float64"}
    await settle(reconcile, kube, obj)
    assert conditions(obj)["Accepted"] == ("False", "InvalidSpec")
    assert conditions(obj)["Ready"] == ("True", "Serving")
    assert len(kube.of("Deployment")) == 1


async def test_a_child_that_the_apiserver_refuses_is_told() -> None:
    kube, obj = world(), build_service()
    kube.refuse["Deployment"] = Invalid("spec.template: Invalid value", 422)
    result = await turn(reconcile, kube, obj)
    assert conditions(obj) == progressing("ApplyRefused")
    assert obj["status"]["message"] == "a child cannot be created: spec.template: Invalid value"
    assert result.requeue_after


def foreign(kind: str, name: str, *, owner: Object | None = None) -> Object:
    """Somebody else's object."""
    references = {"ownerReferences": [owner | {"controller": True}]} if owner else {}
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "team", "uid": "theirs"} | references,
        "data": "theirs",
    }


async def test_a_service_of_the_teams_own_is_not_taken_over() -> None:
    kube, obj = world(), build_service()
    theirs = foreign("Service", "guide")
    kube.put(theirs)
    result = await settle(reconcile, kube, obj)
    assert kube.of("Service") == [theirs]
    assert not kube.of("Deployment"), "no GPU loads a model that nobody can reach"
    assert conditions(obj) == progressing("NameTaken")
    assert "Service guide exists already and was not made by Tunewright: delete it" in obj["status"]["message"]
    assert "traffic" not in obj["status"]["message"]
    assert result.requeue_after == CONFIG.recheck_interval
    kube.objects.pop(("Service", "guide"))
    await serve(kube, obj)


async def test_it_is_ready_only_once_its_service_is_there() -> None:
    kube, obj = world(), build_service()
    await serve(kube, obj)
    kube.objects.pop(("Service", "guide"))
    kube.put(foreign("Service", "guide"))
    await turn(reconcile, kube, obj)
    assert conditions(obj) == progressing("NameTaken")
    assert "url" not in obj["status"]
    kube.objects.pop(("Service", "guide"))
    await turn(reconcile, kube, obj)
    assert conditions(obj) == progressing("Starting")
    assert obj["status"]["message"] == "creating the Service guide"
    await turn(reconcile, kube, obj)
    assert conditions(obj) == SERVING


async def test_the_service_of_a_job_is_not_taken_over() -> None:
    """InferenceService x-train and FineTuneJob x both want the Service x-train."""
    kube, obj = world(), build_service()
    kube.put(foreign("Service", "guide", owner={"kind": "FineTuneJob", "name": "gui", "uid": "uid-gui"}))
    await settle(reconcile, kube, obj)
    assert "Service guide exists already and belongs to FineTuneJob gui" in obj["status"]["message"]


async def test_children_that_the_watch_has_not_shown_yet_are_known_by_their_owner() -> None:
    """Killed after its writes: the next operator's watches may lag behind them."""
    kube, obj = world(), build_service()
    await turn(reconcile, kube, obj)
    kube.writes.clear()
    before = copy.deepcopy(kube.objects)
    result = await reconcile(kube, CONFIG, copy.deepcopy(obj), Children(versions=tuple(kube.of("ModelVersion"))), NOW)
    assert kube.objects == before
    assert kube.writes == []
    assert {c["reason"] for c in result.status["conditions"]} == {"Accepted", "Starting"}


async def test_a_child_that_lost_its_labels_gets_them_back() -> None:
    kube, obj = world(), build_service()
    await serve(kube, obj)
    kube.objects["Service", "guide"]["metadata"]["labels"] = {}
    await settle(reconcile, kube, obj)
    assert kube.objects["Service", "guide"]["metadata"]["labels"]
    assert conditions(obj) == SERVING


# --- rollouts ---------------------------------------------------------------------------------


async def serve(kube: FakeKube, obj: Object) -> str:
    """Until the service answers; returns its revision."""
    await pods(1)(kube, obj)
    await settle(reconcile, kube, obj)
    (revision,) = revisions(kube)
    assert conditions(obj) == SERVING
    return revision


async def test_the_old_version_answers_until_the_new_one_does() -> None:
    kube, obj = world(), build_service()
    old = await serve(kube, obj)
    move_to("guide-v2", approved("guide-v2"))(kube, obj)
    await settle(reconcile, kube, obj)
    (new,) = set(revisions(kube)) - {old}
    assert selected(kube) == old
    assert obj["status"]["stable"]["version"] == "guide-v1"

    run_deployment(kube, new)
    result = await settle(reconcile, kube, obj)
    assert selected(kube) == new
    assert set(revisions(kube)) == {old, new}, "the old revision stays until proxies know that it is left"
    assert conditions(obj) == SERVING | {"Reconciling": ("True", "RollingOut")}
    assert result.requeue_after == RETIRE_SECONDS

    await settle(reconcile, kube, obj, NOW + timedelta(seconds=RETIRE_SECONDS))
    assert revisions(kube) == [new]
    assert [c["metadata"]["labels"][LABEL_VERSION] for c in kube.of("ConfigMap")] == ["guide-v2"]
    assert conditions(obj) == SERVING
    stable = {"version": "guide-v2", "revision": new, "weight": 100, "readyReplicas": 1, "replicas": 1}
    assert obj["status"]["stable"] == stable
    assert [(d["decision"], d["version"], d["weight"]) for d in obj["status"]["history"]] == [
        ("Promoted", "guide-v2", 100),
        ("Started", "guide-v2", 0),
    ]


async def test_a_new_version_that_cannot_start_leaves_the_old_one_alone() -> None:
    kube, obj = world(), build_service()
    old = await serve(kube, obj)
    move_to("guide-v2", approved("guide-v2"))(kube, obj)
    await settle(reconcile, kube, obj)
    (new,) = set(revisions(kube)) - {old}
    broken = crashed(64, message=ours("InvalidConfig", "unknown dtype"))
    broken["metadata"]["labels"] = kube.of("Deployment")[0]["spec"]["template"]["metadata"]["labels"] | {
        LABEL_REVISION: new
    }
    kube.put(broken)
    run_deployment(kube, new, ready=0)
    await settle(reconcile, kube, obj)
    assert conditions(obj) == ROLLED_BACK
    assert selected(kube) == old
    assert (obj["status"]["rejected"]["version"], obj["status"]["rejected"]["reason"]) == ("guide-v2", "InvalidConfig")
    assert "unknown dtype" in obj["status"]["message"]
    assert "tunewright retry guide" in obj["status"]["message"]

    kube.objects.pop(("Pod", broken["metadata"]["name"]))
    await settle(reconcile, kube, obj, NOW + timedelta(seconds=RETIRE_SECONDS))
    assert revisions(kube) == [old], "it is not tried again"
    assert conditions(obj) == ROLLED_BACK


async def test_going_back_removes_the_candidate() -> None:
    kube, obj = world(), build_service()
    old = await serve(kube, obj)
    move_to("guide-v2", approved("guide-v2"))(kube, obj)
    await settle(reconcile, kube, obj)
    move_to("guide-v1")(kube, obj)
    await settle(reconcile, kube, obj)
    await settle(reconcile, kube, obj, NOW + timedelta(seconds=RETIRE_SECONDS))
    assert revisions(kube) == [old]
    assert conditions(obj) == SERVING


async def test_a_withdrawn_version_stops_although_the_next_one_is_not_ready() -> None:
    kube, obj = world(), build_service()
    old = await serve(kube, obj)
    move_to("guide-v2", approved("guide-v2"))(kube, obj)
    await settle(reconcile, kube, obj)
    kube.put(version(status=VERIFIED))
    await settle(reconcile, kube, obj)
    assert old not in revisions(kube)
    assert selected(kube) in revisions(kube)
    assert conditions(obj)["Ready"] == ("False", "Loading")


async def test_a_withdrawn_version_stops_although_the_apiserver_refuses_the_next_one() -> None:
    kube, obj = world(), build_service()
    old = await serve(kube, obj)
    move_to("guide-v2", approved("guide-v2"))(kube, obj)
    kube.put(version(approval=decision("Rejected"), status=VERIFIED))
    kube.refuse["Deployment"] = Forbidden("exceeded quota: deployments", 403)
    await turn(reconcile, kube, obj)
    assert old not in revisions(kube)
    assert conditions(obj)["Ready"] == ("False", "ApplyRefused")


async def test_a_version_with_a_dot_is_served() -> None:
    kube, obj = world(approved("guide-1.0")), build_service("guide-1.0")
    await serve(kube, obj)
    assert obj["status"]["stable"]["version"] == "guide-1.0"
    names = [one["metadata"]["name"] for one in (*kube.of("Deployment"), *kube.of("ConfigMap"))]
    assert not [name for name in names if "." in name]


async def test_scaling_is_no_rollout() -> None:
    kube, obj = world(), build_service()
    revision = await serve(kube, obj)
    obj["spec"]["replicas"] = 3
    obj["metadata"]["generation"] += 1
    await settle(reconcile, kube, obj)
    assert revisions(kube) == [revision]
    assert kube.of("Deployment")[0]["spec"]["replicas"] == 3


async def test_approval_lets_a_waiting_service_go_on() -> None:
    kube, obj = FakeKube(), build_service()
    kube.put(claim(), version(status=VERIFIED))
    await settle(reconcile, kube, obj)
    kube.put(approved())
    await serve(kube, obj)


async def test_a_settled_service_causes_no_write() -> None:
    kube, obj = world(), build_service()
    await serve(kube, obj)
    kube.writes.clear()
    status = copy.deepcopy(obj["status"])
    await settle(reconcile, kube, obj)
    assert kube.writes == []
    assert obj["status"] == status


@settings(deadline=None)
@given(data=st.data())
async def test_whatever_happens_on_the_way_it_ends_with_one_revision_that_answers(data: st.DataObject) -> None:
    """Versions change, pods come and go, the operator loses its status: the Service never selects a revision that is
    not there while another one answers, and in the end only the wanted revision is left."""
    kube, obj = world(approved("guide-v2"), approved("guide-v3")), build_service()
    for event in data.draw(st.lists(st.sampled_from(["turn", "stale", "v1", "v2", "v3", "up", "down"]), max_size=12)):
        before = copy.deepcopy(obj["status"])
        if event in {"up", "down"}:
            for revision in revisions(kube):
                run_deployment(kube, revision, ready=int(event == "up"))
        elif event.startswith("v"):
            move_to(f"guide-{event}")(kube, obj)
        else:
            await turn(reconcile, kube, obj)
            assert selected(kube) in revisions(kube)
        if event == "stale":
            obj["status"] = before
    for _ in range(4):
        await settle(reconcile, kube, obj)
        for revision in revisions(kube):
            run_deployment(kube, revision)
    later = NOW + timedelta(seconds=RETIRE_SECONDS)
    await settle(reconcile, kube, obj, later)
    assert conditions(obj) == SERVING
    (deployment,) = kube.of("Deployment")
    assert deployment["metadata"]["labels"][LABEL_VERSION] == obj["spec"]["model"]["versionRef"]["name"]
    assert selected(kube) == deployment["metadata"]["labels"][LABEL_REVISION]
    assert len(kube.of("ConfigMap")) == 1
    kube.writes.clear()
    await settle(reconcile, kube, obj, later)
    assert kube.writes == []


async def test_the_children_are_as_written_down() -> None:
    kube = world()
    obj = build_service(
        engine={"maxModelLen": 512, "tensorParallelSize": 2},
        replicas=2,
        resources={"cpu": 8, "memory": "64Gi", "nvidia.com/gpu": 2},
        scheduling={"nodeSelector": {"gpu": "a100"}, "priorityClassName": "serving"},
    )
    await settle(reconcile, kube, obj)
    assert violations(kube.of("Deployment")[0]["spec"]["template"]["spec"]) == []
    check_golden(
        GOLDEN / "inferenceservice.yaml",
        [*kube.of("ConfigMap"), *kube.of("Deployment"), *kube.of("Service"), *kube.of("PodDisruptionBudget")],
    )
