"""One service on a real node through its rollouts: real vLLM, Istio and Prometheus, under load all the time.

The tests follow each other: each finds the service as the one before left it. They go on from the version that
test_quickstart.py trains, and train it themselves when they run alone.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.local import LocalCluster
from e2e.cluster.mesh import Mesh
from e2e.cluster.packages import ensure_packages
from e2e.cluster.wait import wait_for
from e2e.demo import canary, quickstart
from e2e.demo.canary import BETTER, FIRST, WORSE
from e2e.demo.kubectl import Kubectl, condition, is_true, poll
from e2e.demo.load import Load, summarize
from e2e.scenarios.chaos import kill_pod
from e2e.scenarios.conftest import Platform
from tests.rollouts.laws import Record, Weights, check_decided_first, check_laws
from tunewright_monitoring import render
from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import queries
from tunewright_monitoring.picture import Span

pytestmark = pytest.mark.node

Object = dict[str, Any]

NAMESPACE, SERVICE = quickstart.NAMESPACE, canary.SERVICE
STEPS = yaml.safe_load(canary.manifest())["spec"]["rollout"]["steps"]
MANY = 1000
AT_EACH_STEP = 10
# `make docs-images` names a folder here: the dashboards are drawn into it from what Prometheus saw of these tests.
PICTURES = os.environ.get("DOCS_IMAGES")


@dataclass(frozen=True)
class Stage:
    """The running service, and how to look at it."""

    platform: Platform
    mesh: Mesh
    record: Record
    began: float  # since when Prometheus looks, in seconds of the epoch

    @property
    def kubectl(self) -> Kubectl:
        return self.platform.kubectl

    def load(self) -> Load:
        """Short answers: it is the number of requests that counts here."""
        return canary.load(self.mesh, max_tokens=4)

    def service(self) -> Object:
        return canary.service(self.kubectl)

    def follow(self, version: str, watched: Watched) -> Object:
        """The service when the rollout of this version has ended and the pods of the other revision are gone."""
        ended = canary.follow_rollout(self.kubectl, version, watched)
        canary.wait_retired(self.kubectl)
        return ended

    def weights(self, since: float) -> list[Weights]:
        """What the gateway was told since then; all that it was told here must be lawful, and decided before."""
        everything = self.record.weights(NAMESPACE, f"{SERVICE}-gateways", SERVICE)
        history = [weights for weights in everything if weights.time >= self.began]
        check_laws(history, STEPS)
        check_decided_first(history, self.record.statuses(NAMESPACE, SERVICE))
        return [weights for weights in history if weights.time >= since]


@dataclass
class Watched:
    """The states of a service during a rollout: it must be Ready in each."""

    unready: list[Object] = field(default_factory=list)

    def __call__(self, service: Object) -> None:
        ready = condition(service, "Ready")
        if ready is None or ready["status"] != "True":
            self.unready.append(service["status"])


@pytest.fixture(scope="module")
def mesh(platform: Platform, cluster_with_mesh: LocalCluster) -> Mesh:
    """Istio and Prometheus, which the operator knows from now on."""
    canary.install(platform.kubectl, platform.images)
    canary.watch(platform.kubectl, cluster_with_mesh.mesh)
    return cluster_with_mesh.mesh


@pytest.fixture(scope="module")
def began(mesh: Mesh) -> float:
    """Since when Prometheus looks, in seconds of the epoch."""
    return time.time()


@pytest.fixture(scope="module")
def versions(platform: Platform, began: float) -> None:
    """Three approved versions; Prometheus sees how two of them are trained."""
    kubectl = platform.kubectl
    kubectl.apply(quickstart.manifest("rbac.yaml"))
    if kubectl.get("modelversion", FIRST, NAMESPACE) is None:
        kubectl.apply(quickstart.manifest("02-finetunejob.yaml"))
        quickstart.follow_job(kubectl, "guide", lambda _: None)
        canary.approve(kubectl, FIRST)
    for _, file in canary.JOBS.values():
        kubectl.apply(canary.manifest(file))
    for version, (job, _) in canary.JOBS.items():
        quickstart.follow_job(kubectl, job, lambda _: None)
        canary.approve(kubectl, version)


@pytest.fixture(scope="module")
def stage(platform: Platform, mesh: Mesh, began: float, versions: None) -> Iterator[Stage]:
    """The first version behind Istio; at the end the service goes, so that the node is free for others."""
    canary.move_alias(platform.kubectl, FIRST)
    canary.join_mesh(platform.kubectl, mesh)
    yield Stage(platform, mesh, Record(platform.plane.audit), began)
    platform.kubectl.run("delete", "ftj,tis", "--all", "-n", NAMESPACE, "--wait=true", "--timeout=60s")


def test_a_better_version_is_promoted_under_load_without_one_failed_request(stage: Stage) -> None:
    watched, mark = Watched(), time.time()
    with stage.load() as load:
        canary.move_alias(stage.kubectl, BETTER)
        service = stage.follow(BETTER, watched)
        load.wait_for(MANY)
    summary = summarize(load.exchanges)
    assert summary.failures == ()
    assert summary.requests >= MANY
    moved = [weights.time for weights in stage.weights(mark)]
    meanwhile = sum(moved[0] <= one.sent <= moved[-1] for one in load.exchanges)
    print(f"{summary}; {meanwhile} of them between the first change of the weights and the last")
    assert meanwhile >= AT_EACH_STEP * len(moved)
    assert canary.outcome(service, BETTER) == "promoted"
    assert watched.unready == []
    taken = [one for one in reversed(service["status"]["history"]) if one["decision"] != "Held"]
    assert [(one["decision"], one["weight"]) for one in taken] == [
        ("Started", 0),
        *(("Advanced", weight) for weight in STEPS),
        ("Promoted", 100),
    ]
    revision = service["status"]["stable"]["revision"]
    assert [weights.shares.get(revision) for weights in stage.weights(mark)] == [*STEPS, 100]
    analysis = service["status"]["analysis"]
    assert analysis["verdict"] == "Pass"
    assert [one["name"] for one in analysis["metrics"] if one.get("candidate") is None] == []
    assert (analysis["probes"]["passed"], analysis["probes"]["total"]) == (3, 3)
    # Prometheus is what judges: it must have seen what the clients saw.
    counted = canary.requests_by_version(stage.mesh)
    assert counted.keys() >= {FIRST, BETTER}
    assert sum(counted.values()) >= 0.98 * summary.requests


def test_a_version_that_answers_wrongly_is_rolled_back_by_itself(stage: Stage) -> None:
    watched, mark = Watched(), time.time()
    before = stage.service()["status"]["stable"]["revision"]
    with stage.load() as load:
        canary.move_alias(stage.kubectl, WORSE)
        service = stage.follow(WORSE, watched)
    assert summarize(load.exchanges).failures == ()
    status = service["status"]
    assert (status["stable"]["version"], status["stable"]["revision"]) == (BETTER, before)
    assert (status["rejected"]["version"], status["rejected"]["reason"]) == (WORSE, "WrongAnswers")
    assert (status["history"][0]["decision"], status["history"][0]["reason"]) == ("RolledBack", "WrongAnswers")
    assert status["analysis"]["verdict"] == "Fail"
    assert status["analysis"]["probes"]["passed"] < 3
    assert watched.unready == []
    assert is_true(service, "Degraded")
    stalled = condition(service, "Stalled")
    assert stalled
    assert stalled["reason"] == "RolledBack"
    assert [weights.shares.get(before) for weights in stage.weights(mark)] == [100 - STEPS[0], 100]


@pytest.fixture
def before(stage: Stage) -> Iterator[str]:
    """The better version's revision, which serves before and after; what the test asked for is taken back."""
    canary.move_alias(stage.kubectl, BETTER)
    revision: str = settled(stage)["status"]["stable"]["revision"]
    yield revision
    stage.kubectl.apply(canary.manifest())
    canary.move_alias(stage.kubectl, BETTER)
    service = settled(stage)
    assert service["status"]["stable"]["revision"] == revision
    assert not is_true(service, "Degraded")


NEVER_READY = {
    "an argument that vLLM does not know": (
        {"extraArgs": ["--no-such-argument=1"]},
        "InvalidConfig",
        "no-such-argument",
    ),
    "a longer context than the model's": ({"maxModelLen": 100_000}, "InvalidConfig", "engine.maxModelLen"),
}


@pytest.mark.parametrize("case", NEVER_READY)
def test_a_revision_that_never_gets_ready_is_rolled_back(stage: Stage, before: str, case: str) -> None:
    engine, reason, word = NEVER_READY[case]
    mark = time.time()
    document = yaml.safe_load(canary.manifest())
    document["spec"]["engine"] |= engine
    with stage.load() as load:
        stage.kubectl.apply(yaml.safe_dump(document))
        service = rolled_back(stage, before)
    check_never_served(stage, service, load, before=before, mark=mark, reason=reason, word=word)


def test_files_that_changed_after_their_verification_are_never_served(
    stage: Stage, before: str, tmp_path: Path
) -> None:
    mark = time.time()
    (tmp_path / "config.json").write_text("{}")
    changed = {"models/guide/v3/model/config.json": tmp_path / "config.json"}
    quickstart.upload(stage.kubectl, stage.platform.images["trainer"], changed)
    with stage.load() as load:
        canary.move_alias(stage.kubectl, WORSE)
        service = rolled_back(stage, before)
    check_never_served(
        stage, service, load, before=before, mark=mark, reason="DigestMismatch", word="model/config.json"
    )


def test_an_operator_that_is_killed_on_the_way_ends_like_one_that_is_not(stage: Stage) -> None:
    """Back to the first version, so that nothing has to be trained for it."""
    watched, mark = Watched(), time.time()
    killed: list[int] = []

    def kill(service: Object) -> None:
        watched(service)
        weight = (service["status"].get("candidate") or {}).get("weight", 0)
        if weight in (STEPS[0], STEPS[-1]) and weight not in killed:
            assert kill_pod(stage.platform.operator_pod())
            killed.append(weight)

    with stage.load() as load:
        canary.move_alias(stage.kubectl, FIRST)
        service = canary.follow_rollout(stage.kubectl, FIRST, kill)
        canary.wait_retired(stage.kubectl)
    assert killed == [STEPS[0], STEPS[-1]]
    assert canary.outcome(service, FIRST) == "promoted"
    assert summarize(load.exchanges).failures == ()
    assert watched.unready == []
    revision = service["status"]["stable"]["revision"]
    assert [weights.shares.get(revision) for weights in stage.weights(mark)] == [*STEPS, 100]


def test_a_restarted_pod_fails_no_request(stage: Stage) -> None:
    name = f"deployment/{SERVICE}-{stage.service()['status']['stable']['revision']}"
    with stage.load() as load:
        load.wait_for(20)
        stage.kubectl.run("rollout", "restart", name, "-n", NAMESPACE)
        stage.kubectl.run("rollout", "status", name, "-n", NAMESPACE, "--timeout=300s")
        canary.wait_retired(stage.kubectl)
        load.wait_for(len(load.exchanges) + 20)
    assert summarize(load.exchanges).failures == ()
    assert stage.service()["status"]["stable"]["version"] == FIRST


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_of_every_dashboard_has_data_of_these_tests(stage: Stage, name: str) -> None:
    now = time.time()
    span = Span(stage.began, now, max(5.0, (now - stage.began) / 1000))
    without = [query for query in queries(DASHBOARDS[name], gpu=False) if not has_data(stage.mesh, query, span)]
    assert without == []
    if PICTURES:
        ensure_packages({"rsvg-convert": "librsvg2-bin"}, print)
        times = [f"--start={span.start}", f"--end={span.end}", f"--output={Path(PICTURES, name)}.svg"]
        assert render.main([f"--prometheus={stage.mesh.prometheus_url}", f"--dashboard={name}", *times]) == 0


def has_data(mesh: Mesh, query: str, span: Span) -> bool:
    """Whether the query had an answer that is a number at any time of the span."""
    series = render.query_range(mesh.prometheus_url, query, span)
    return any(math.isfinite(float(value)) for one in series for _, value in one["values"])


def rolled_back(stage: Stage, before: str) -> Object:
    """The service once a revision other than `before` was rejected and its pods are gone."""

    def ended(service: Object) -> bool:
        status = service["status"]
        return "candidate" not in status and "rejected" in status and status["stable"]["revision"] == before

    service = poll(stage.service, ended, 300)
    canary.wait_retired(stage.kubectl)
    return service


def settled(stage: Stage) -> Object:
    """The service once it is as its spec says, with nothing rejected."""

    def so(service: Object) -> bool:
        return is_true(service, "Ready") and not {"candidate", "rejected"} & service["status"].keys()

    return poll(stage.service, so, 60)


def check_never_served(
    stage: Stage, service: Object, load: Load, *, before: str, mark: float, reason: str, word: str
) -> None:
    """The rejection names the cause, nobody got an error, and the route never led away from the stable revision."""
    status = service["status"]
    assert status["rejected"]["reason"] == reason
    assert word in status["rejected"]["message"]
    assert status["lastFailure"]["reason"] == reason
    assert is_true(service, "Ready")
    assert is_true(service, "Degraded")
    assert summarize(load.exchanges).failures == ()
    assert stage.weights(mark) == []


def test_deleting_the_service_leaves_nothing_of_it_in_the_mesh(stage: Stage) -> None:
    stage.kubectl.run("delete", "tis", SERVICE, "-n", NAMESPACE, "--wait=true", "--timeout=60s")
    kinds = "virtualservices,destinationrules,peerauthentications,authorizationpolicies,services,deployments,configmaps"

    def gone() -> bool:
        selector = "app.kubernetes.io/managed-by=tunewright,tunewright.io/kind=InferenceService"
        return not stage.kubectl.run("get", kinds, "-n", NAMESPACE, "-l", selector).strip()

    wait_for("children gone", gone, 90, interval=1)
