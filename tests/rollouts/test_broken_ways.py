"""Ways to be broken: `Ready` is never True while a completion fails, and the status names the cause and what to do.

What a container says is what the server image says: the endings go through its own diagnosis of vLLM's last lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster.rest import ApiError
from tests.rollouts.arena import create_claim, wait_bound
from tests.rollouts.behaviour import OUT_OF_MEMORY, Ending, Waiting
from tests.rollouts.kubelet import DIGEST, Scripts, verified
from tests.rollouts.stage import Stage
from tunewright_api.names import ExitCode
from tunewright_api.results import Outcome, StageResult
from tunewright_server.diagnosis import Exit, diagnose

pytestmark = pytest.mark.timeout(300)

Object = dict[str, Any]
Act = Callable[[Stage], None]

BROKEN = "broken"
QUOTA = "quota"


@dataclass(frozen=True)
class Way:
    """What breaks, and what status then says: the conditions, and words of the message (or of the hint)."""

    act: Act
    want: dict[str, str]
    words: tuple[str, ...] = ()
    heal: Act | None = None  # what the message says to do; then the service answers


def waits(reason: str) -> dict[str, str]:
    """It does not answer, and may by itself."""
    return {"Ready": f"False/{reason}", "Reconciling": f"True/{reason}", "Stalled": ""}


def stuck(reason: str) -> dict[str, str]:
    """It does not answer, and somebody has to do something."""
    return {"Ready": f"False/{reason}", "Stalled": f"True/{reason}", "Reconciling": ""}


def serve(stage: Stage, **spec: Any) -> None:
    """A verified and approved version, served without a mesh."""
    stage.register("v1")
    stage.serve("v1", **{"provider": "None", **spec})


def behaving(**how: Any) -> Act:
    """The container does this from its start."""

    def act(stage: Stage) -> None:
        stage.behave("v1", **how)
        serve(stage)

    return act


def saying(code: int, *lines: str, oom_kills: int = 0) -> Act:
    """vLLM ends like this, and the server image makes of it what it makes of it."""
    error = diagnose(Exit(code, lines, oom_kills))
    return behaving(ending=Ending.ours(error.code, error.message))


def asking(**spec: Any) -> Act:
    """The spec asks for this."""
    return lambda stage: serve(stage, **spec)


def after_serving(break_it: Act) -> Act:
    """It served well before."""

    def act(stage: Stage) -> None:
        serve(stage)
        stage.settled("v1")
        break_it(stage)

    return act


def refer(stage: Stage, number: str = "v1") -> None:
    """Serve a version that may not be there."""
    stage.serve(number, provider="None")


def follow(stage: Stage) -> None:
    """Serve what an alias names."""
    stage.serve(provider="None", model={"alias": {"modelName": stage.service, "name": "production"}})


def mend(**how: Any) -> Act:
    """The container behaves from now on."""
    return lambda stage: stage.behaviour("v1").__dict__.update({"ending": None, "waiting": None, **how})


def unverified(stage: Stage) -> None:
    """The files are still being read."""
    stage.arena.kubelet.scripts[stage.namespace, stage.name("v1")] = Scripts(verify=lambda _: None)
    stage.create_version("v1")
    stage.decide("v1", "Approved")
    refer(stage)


def verify_now(stage: Stage) -> None:
    """The files have been read."""
    stage.arena.kubelet.scripts[stage.namespace, stage.name("v1")] = Scripts(verify=verified)


def tampered(stage: Stage) -> None:
    """The files are not what the record says."""
    found = StageResult(outcome=Outcome.FAILED, reason="DigestMismatch", message="model/config.json was changed")
    stage.arena.kubelet.scripts[stage.namespace, stage.name("v1")] = Scripts(verify=lambda _: found)
    stage.create_version("v1")
    stage.decide("v1", "Approved")
    refer(stage)


def undecided(stage: Stage) -> None:
    stage.create_version("v1")
    refer(stage)


def rejected(stage: Stage) -> None:
    stage.create_version("v1")
    stage.decide("v1", "Rejected")
    refer(stage)


def adapter(stage: Stage) -> None:
    stage.create_version("v1", kind="Adapter")
    stage.decide("v1", "Approved")
    refer(stage)


def without_claim(stage: Stage) -> None:
    """The claim was removed after the files had been verified."""
    create_claim(stage.arena.plane, stage.namespace, "lost")
    wait_bound(stage.arena.plane, stage.namespace, "lost")
    artifact = {"uri": "pvc://lost/v1", "digest": DIGEST, "format": "Safetensors", "sizeBytes": 1}
    stage.register("v1", artifact=artifact)
    claim = f"/api/v1/namespaces/{stage.namespace}/persistentvolumeclaims/lost"
    stage.arena.plane.api.delete(claim)
    stage.wait("the claim gone", lambda: not stage.arena.plane.exists(claim))
    refer(stage)


def no_alias(stage: Stage) -> None:
    stage.register("v1")
    follow(stage)


def two_aliases(stage: Stage) -> None:
    for number in ("v1", "v2"):
        stage.register(number, aliases=["production"])
    follow(stage)


def name_taken(stage: Stage) -> None:
    """Somebody has a Service of this name."""
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": stage.service},
        "spec": {"ports": [{"port": 80}]},
    }
    stage.arena.plane.api.create(f"/api/v1/namespaces/{stage.namespace}/services", body)
    serve(stage)


def free_name(stage: Stage) -> None:
    stage.arena.plane.api.delete(f"/api/v1/namespaces/{stage.namespace}/services/{stage.service}")


def no_quota(stage: Stage) -> None:
    """The namespace may have no further pod."""
    stage.register("v1")
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    stage.arena.plane.api.create(path, body)
    stage.wait("the quota counted", lambda: "hard" in stage.arena.plane.api.get(f"{path}/none").get("status", {}))
    refer(stage)


def raise_quota(stage: Stage) -> None:
    stage.arena.plane.api.delete(f"/api/v1/namespaces/{stage.namespace}/resourcequotas/none")


WAYS = {
    "bad-argument": Way(
        saying(2, "usage: api_server.py [options]", "api_server.py: error: unrecognized arguments: --nonsense"),
        stuck("InvalidConfig"),
        ("--nonsense", "spec.engine"),
    ),
    "too-long-context": Way(
        saying(1, "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len (2048)"),
        stuck("InvalidConfig"),
        ("maxModelLen",),
    ),
    "wrong-digest": Way(
        behaving(ending=Ending.ours(ExitCode.DIGEST_MISMATCH, "model/config.json was changed after export")),
        stuck("DigestMismatch"),
        ("model/config.json", "restore the artifact's files"),
        heal=mend(),
    ),
    "missing-file": Way(
        saying(1, "RuntimeError: Cannot find any model weights with `/mnt/claims/data/v1/model`"),
        stuck("InvalidData"),
        ("weights are missing",),
    ),
    "unreadable-file": Way(
        behaving(ending=Ending.ours(ExitCode.INPUT_NOT_READABLE, "manifest.json cannot be read: permission denied")),
        stuck("InputNotReadable"),
        ("65532",),
    ),
    "memory-of-the-pod": Way(
        behaving(ending=OUT_OF_MEMORY),
        stuck("OutOfMemory"),
        ("resources.memory",),
        heal=mend(),
    ),
    "memory-killed-inside": Way(
        saying(-9, "Loading safetensors checkpoint shards", oom_kills=1),
        stuck("OutOfMemory"),
        ("resources.memory",),
    ),
    "memory-of-the-gpu": Way(
        saying(1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        stuck("OutOfMemory"),
        ("GPU",),
    ),
    "port-taken": Way(
        saying(
            1, "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"
        ),
        stuck("Internal"),
        ("port of the API is taken", "remove the container"),
    ),
    "crash-loop": Way(
        behaving(ending=Ending(139, "Fatal Python error: Segmentation fault")),
        stuck("ContainerFailed"),
        ("139", "SIGSEGV", "logs", "--previous"),
    ),
    "slow-load": Way(
        behaving(loads=False),
        waits("Loading"),
        ("0 of 1 pods", "load the model"),
        heal=mend(loads=True),
    ),
    "image-not-there": Way(
        behaving(waiting=Waiting("ImagePullBackOff", "manifest unknown")),
        waits("ImageNotPulled"),
        ("manifest unknown", "chart values"),
        heal=mend(),
    ),
    "image-never-pulled": Way(
        behaving(waiting=Waiting("ErrImageNeverPull", "not present with pull policy of Never")),
        stuck("ImageNotPulled"),
        ("chart values",),
    ),
    "container-not-made": Way(
        behaving(waiting=Waiting("CreateContainerConfigError", 'configmap "x" not found')),
        waits("CreateContainerConfigError"),
        ("not found", "mended"),
    ),
    "no-gpu": Way(
        asking(resources={"nvidia.com/gpu": 8}, engine={"tensorParallelSize": 8}),
        waits("Unschedulable"),
        ("Insufficient nvidia.com/gpu", "add a node"),
    ),
    "no-such-node": Way(
        asking(scheduling={"nodeSelector": {"disk": "nvme"}}),
        waits("Unschedulable"),
        ("spec.scheduling",),
    ),
    "no-claim": Way(without_claim, waits("ClaimNotFound"), ("pvc://lost", "once it exists")),
    "no-version": Way(refer, waits("ModelVersionNotFound"), ("there is no ModelVersion",)),
    "not-approved": Way(
        undecided,
        waits("NotApproved"),
        ("approval",),
        heal=lambda stage: stage.decide("v1", "Approved"),
    ),
    "rejected": Way(rejected, stuck("Rejected"), ("another version",)),
    "approval-revoked": Way(
        after_serving(lambda stage: stage.decide("v1", None)),
        waits("NotApproved"),
        ("approval",),
        heal=lambda stage: stage.decide("v1", "Approved"),
    ),
    "not-verified": Way(unverified, waits("NotVerified"), ("not verified yet",), heal=verify_now),
    "files-changed": Way(tampered, stuck("DigestMismatch"), ("model/config.json",)),
    "adapter": Way(adapter, stuck("AdapterNotServable"), ("kind Full",)),
    "unknown-alias": Way(
        no_alias,
        waits("AliasNotFound"),
        ("spec.aliases",),
        heal=lambda stage: stage.change_version("v1", aliases=["production"]),
    ),
    "ambiguous-alias": Way(
        two_aliases,
        waits("AliasAmbiguous"),
        ("remove it from all but",),
        heal=lambda stage: stage.change_version("v2", aliases=None),
    ),
    "name-taken": Way(name_taken, waits("NameTaken"), ("exists already", "delete it"), heal=free_name),
    "stops-answering": Way(
        after_serving(lambda stage: setattr(stage.behaviour("v1"), "healthy", False)),
        waits("Loading"),
        ("0 of 1",),
        heal=mend(healthy=True),
    ),
    "crashes-later": Way(
        after_serving(lambda stage: setattr(stage.behaviour("v1"), "ending", Ending(1, "RuntimeError: CUDA error"))),
        stuck("ContainerFailed"),
        ("CUDA error", "--previous"),
        heal=mend(),
    ),
    "out-of-memory-later": Way(
        after_serving(lambda stage: setattr(stage.behaviour("v1"), "ending", OUT_OF_MEMORY)),
        stuck("OutOfMemory"),
        ("resources.memory",),
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.scenario("way", group=BROKEN, quiet=True)
def test_a_broken_service_says_so_and_what_to_do(stage: Stage, way: Way) -> None:
    check(stage, way)


@pytest.mark.scenario("way-quota", group=QUOTA, quiet=True)
def test_a_quota_that_refuses_pods_is_named(stage: Stage) -> None:
    check(stage, Way(no_quota, waits("PodsRefused"), ("exceeded quota", "raise the quota"), heal=raise_quota))


def check(stage: Stage, way: Way) -> None:
    """Break it, read the status, and do what it says."""
    way.act(stage)
    status = stage.expect(**way.want)
    told = " ".join([status["message"], (status.get("lastFailure") or {}).get("hint", "")])
    assert [word for word in way.words if word not in told] == [], told
    assert "url" not in status
    if way.heal:
        way.heal(stage)
        stage.settled("v1")
        stage.wait("a completion", lambda: stage.arena.witness.asked(stage.namespace, stage.service) > 0)


@pytest.mark.scenario("way-half", group=BROKEN, quiet=True)
def test_half_of_the_replicas_answer_and_the_other_half_is_named(stage: Stage) -> None:
    stage.pick = lambda number, pod: f"{number}-{'broken' if pod % 2 else 'good'}"
    stage.behave("v1-broken", ending=OUT_OF_MEMORY)
    serve(stage, replicas=4)
    status = stage.expect(Ready="True/Serving", Stalled="True/OutOfMemory")
    assert status["stable"]["replicas"] == 4
    stage.wait("two pods", lambda: stage.status()["stable"]["readyReplicas"] == 2)
    assert "resources.memory" in stage.status()["message"]


@pytest.mark.scenario("way-name", group=BROKEN, quiet=True)
def test_a_name_that_no_service_can_have_is_refused(stage: Stage) -> None:
    stage.service = "1st"
    with pytest.raises(ApiError, match="start with a letter"):
        refer(stage)


@pytest.mark.scenario("way-zero", group=BROKEN, quiet=True)
def test_a_service_without_pods_claims_nothing(stage: Stage) -> None:
    serve(stage, replicas=0)
    stage.expect(Ready="", Reconciling="", Stalled="")
    stage.change(replicas=1)
    stage.settled("v1")
    stage.change(replicas=0)
    stage.expect(Ready="", Reconciling="", Stalled="")


@pytest.mark.scenario("way-unmeasured", alone=True, quiet=True)
def test_a_canary_that_nobody_can_measure_is_refused(stage: Stage) -> None:
    with stage.arena.operator(stage.namespace, TUNEWRIGHT_PROMETHEUS_URL=""):
        serve(stage)
        status = stage.expect(**stuck("PrometheusNotConfigured"))
        assert "prometheus.url" in status["message"]


def without_istio(stage: Stage) -> None:
    """Before the mesh is there."""
    stage.register("v1")
    stage.serve("v1", provider="Istio")
    status = stage.expect(**waits("IstioNotInstalled"))
    assert "install it" in status["message"]


@pytest.mark.scenario("way-meshless", group=BROKEN, quiet=True, prelude=without_istio)
def test_a_service_that_waits_for_istio_goes_on_once_it_is_installed(stage: Stage) -> None:
    stage.settled("v1")
