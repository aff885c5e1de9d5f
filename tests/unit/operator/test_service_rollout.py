"""An InferenceService on its way from one revision to the next: what is written, in which order, and after a kill."""

import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.kstatus import KStatus, kstatus
from tests.serving import (
    CONFIG,
    DIGEST,
    NOW,
    FakeKube,
    approved,
    claim,
    conditions,
    pod,
    revisions,
    run_deployment,
    selected,
    version,
)
from tests.serving import service as build_service
from tunewright_api.names import ANNOTATION_REQUEST, LABEL_VERSION
from tunewright_api.results import ServerPerformance, ServerReadiness
from tunewright_api.rollout_status import Analysis, Verdict
from tunewright_operator.kube.errors import Forbidden, Invalid, KubeError, Transient
from tunewright_operator.observe.times import format_time
from tunewright_operator.policies.rollout import RETIRE_SECONDS
from tunewright_operator.reconcile import inferenceservice as module
from tunewright_operator.reconcile.events import compute_events
from tunewright_operator.reconcile.inferenceservice import reconcile
from tunewright_operator.reconcile.result import Event
from tunewright_operator.status.figures import new_decisions

Object = dict[str, Any]

MEASURED = replace(CONFIG, prometheus_url="http://prometheus.test")
CANARY = {"strategy": "Canary", "interval": "10s", "steps": [10, 50]}
INTERVAL = timedelta(seconds=10)


class KilledError(Exception):
    """The operator ends here."""


class World:
    """A service behind Istio whose checks have the verdict that a test gives them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **spec: Any) -> None:
        self.kube = FakeKube()
        self.kube.put(claim(), approved(), approved("guide-v2"), approved("guide-v3"))
        self.obj = build_service(**({"traffic": {"provider": "Istio"}, "rollout": CANARY} | spec))
        self.now = NOW
        self.settings = MEASURED
        self.verdict = Verdict.PASS
        self.checks = 0
        self.check: Analysis | None = None
        self.probes_hang = False
        self.kill_at: int | None = None
        monkeypatch.setattr(module, "measure", self._measure)

        monkeypatch.setattr(module, "fetch_readiness", self._fetch_readiness)
        self.asked: list[dict[str, int]] = []  # the weights when a pod was asked what it measured
        self.readiness: ServerReadiness | None = None

    async def _measure(self, *_: Any, window: Any, now: datetime, **__: Any) -> Analysis:
        self.checks += 1
        return Analysis(
            time=format_time(now),
            revision=window.revision,
            weight=window.weight,
            window_seconds=window.seconds,
            verdict=self.verdict,
            reason="TTFTP95" if self.verdict is Verdict.FAIL else "Passed",
            message="as the test says",
        )

    async def _fetch_readiness(self, _: str) -> ServerReadiness | None:
        self.asked.append(self.weights())
        return self.readiness

    async def turn(self) -> None:
        """One reconcile; what it recorded on the way is stored even if it is killed after that."""
        obj, recorded = copy.deepcopy(self.obj), len(self.kube.statuses)
        children = replace(self.kube.children(obj), check=self.check)
        self.check = None
        try:
            result = await reconcile(self.kube, self.settings, obj, children, self.now)
            self.obj["status"] = result.status
            self.check = await result.check.make() if result.check and not self.probes_hang else None
        except (KilledError, Transient):
            for status in self.kube.statuses[recorded:]:
                self.obj["status"] = status

    async def settle(self, *, seconds: float = 0, pods: bool = True) -> None:
        """Let time pass, and reconcile until nothing changes; every pod that was asked for is ready with `pods`."""
        self.now += timedelta(seconds=seconds)
        for _ in range(20):
            before = (copy.deepcopy(self.kube.objects), copy.deepcopy(self.obj["status"]))
            if pods:
                for revision in revisions(self.kube):
                    run_deployment(self.kube, revision)
            await self.turn()
            if self.check is None and before == (self.kube.objects, self.obj["status"]):
                return
        raise AssertionError(f"does not settle: {self.kube.writes[-20:]}")

    def move(self, name: str) -> None:
        """The spec asks for another version."""
        self.obj["spec"]["model"] = {"versionRef": {"name": name}}
        self.obj["metadata"]["generation"] += 1

    def ask(self, verb: str, number: int = 1) -> None:
        """A person's request about the candidate."""
        status = self.obj["status"]
        revision = (status.get("candidate") or status.get("rejected"))["revision"]
        self.obj["metadata"]["annotations"] = {ANNOTATION_REQUEST: f"{verb}@{revision}/{number}"}

    def weights(self) -> dict[str, int]:
        """Version -> percent, as the VirtualService has it."""
        versions = {
            d["metadata"]["name"][-8:]: d["metadata"]["labels"][LABEL_VERSION] for d in self.kube.of("Deployment")
        }
        (routes,) = [vs["spec"]["http"][-1]["route"] for vs in self.kube.of("VirtualService")]
        return {versions[route["destination"]["subset"]]: route["weight"] for route in routes}

    @property
    def decisions(self) -> list[str]:
        """The history, oldest first."""
        return [entry["decision"] for entry in reversed(self.obj["status"]["history"])]


@pytest.fixture
async def canary(monkeypatch: pytest.MonkeyPatch) -> World:
    """guide-v1 serves, guide-v2 has its first weight."""
    world = World(monkeypatch)
    await world.settle()
    world.move("guide-v2")
    await world.settle()
    assert world.weights() == {"guide-v1": 90, "guide-v2": 10}
    return world


async def test_a_good_candidate_moves_up_interval_by_interval(canary: World) -> None:
    assert conditions(canary.obj)["Reconciling"] == ("True", "Progressing")
    assert conditions(canary.obj)["Ready"] == ("True", "Serving")
    assert kstatus(canary.obj) is KStatus.IN_PROGRESS
    assert selected(canary.kube) == canary.obj["status"]["stable"]["revision"]
    await canary.settle(seconds=9)
    assert canary.checks == 0, "no check before the interval is over"
    await canary.settle(seconds=1)
    assert canary.weights() == {"guide-v1": 50, "guide-v2": 50}
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v2": 100}
    await canary.settle(seconds=RETIRE_SECONDS)
    assert len(revisions(canary.kube)) == 1
    assert canary.checks == 2
    assert canary.decisions == ["Started", "Advanced", "Advanced", "Promoted"]
    assert conditions(canary.obj) == {"Accepted": ("True", "Accepted"), "Ready": ("True", "Serving")}


async def test_a_breach_is_undone_in_one_turn_and_remembered(canary: World) -> None:
    canary.verdict = Verdict.FAIL
    canary.now += INTERVAL
    await canary.turn()
    assert canary.check, "measured"
    await canary.turn()
    assert canary.weights() == {"guide-v1": 100}
    assert conditions(canary.obj) == {
        "Accepted": ("True", "Accepted"),
        "Ready": ("True", "Serving"),
        "Degraded": ("True", "RolledBack"),
        "Stalled": ("True", "RolledBack"),
    }
    assert kstatus(canary.obj) is KStatus.FAILED
    await canary.settle(seconds=600)
    assert revisions(canary.kube) == [canary.obj["status"]["stable"]["revision"]], "it is not tried again"
    canary.kube.writes.clear()
    await canary.settle(seconds=600)
    assert canary.kube.writes == []

    canary.verdict = Verdict.PASS
    canary.ask("retry")
    await canary.settle()
    assert canary.weights() == {"guide-v1": 90, "guide-v2": 10}
    assert canary.obj["status"]["lastHandledRequest"]["outcome"] == "Done"


async def test_the_decision_is_in_status_before_the_weights_move(canary: World) -> None:
    canary.kube.statuses.clear()
    seen: list[tuple[int, int]] = []
    apply = canary.kube.apply

    async def spy(manifest: Object) -> Object:
        if manifest["kind"] == "VirtualService":
            route = manifest["spec"]["http"][-1]["route"]
            seen.append((canary.kube.statuses[-1]["candidate"]["weight"], route[-1]["weight"]))
        return await apply(manifest)

    canary.kube.apply = spy  # type: ignore[method-assign]
    await canary.settle(seconds=10)
    assert seen == [(50, 50)]


async def test_an_operator_that_is_killed_at_any_write_ends_as_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(kill_at: int | None) -> tuple[int, list[dict[str, int]], list[str], Object]:
        world, writes, history = World(monkeypatch), 0, []

        def count() -> None:
            nonlocal writes
            writes += 1
            if writes == kill_at:
                raise KilledError

        for verb in ("create", "apply", "delete", "patch_status"):
            original = getattr(world.kube, verb)

            async def counted(*arguments: Any, original: Any = original) -> Any:
                answer = await original(*arguments)
                count()
                return answer

            monkeypatch.setattr(world.kube, verb, counted)
        await world.settle()
        world.move("guide-v2")
        for _ in range(10):
            await world.settle(seconds=5)
            if not history or history[-1] != world.weights():
                history.append(world.weights())
        return writes, history, world.decisions, {**world.obj["status"], "history": None, "conditions": None}

    total, history, decisions, status = await run(None)
    assert history[-1] == {"guide-v2": 100}
    for kill_at in range(1, total + 1):
        _, killed_history, killed_decisions, killed_status = await run(kill_at)
        assert (killed_history, killed_decisions, killed_status) == (history, decisions, status), f"at write {kill_at}"


async def test_an_abort_and_a_revoked_approval_are_undone_in_one_turn(canary: World) -> None:
    before = copy.deepcopy((canary.kube.objects, canary.obj))
    canary.ask("abort")
    await canary.turn()
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["rejected"]["reason"] == "Aborted"

    canary.kube.objects, canary.obj = before
    canary.kube.put(version("guide-v2", status={"observedGeneration": 1, "verifiedDigest": DIGEST}))
    await canary.turn()
    assert [d["metadata"]["labels"][LABEL_VERSION] for d in canary.kube.of("Deployment")] == ["guide-v1"]
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["history"][0]["reason"] == "ApprovalRevoked"


async def test_a_newer_spec_takes_the_place_of_the_candidate(canary: World) -> None:
    canary.move("guide-v3")
    await canary.settle(pods=False)
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["candidate"]["version"] == "guide-v3"
    await canary.settle()
    assert canary.weights() == {"guide-v1": 90, "guide-v3": 10}


# --- aliases ----------------------------------------------------------------------------------


async def test_moving_an_alias_starts_a_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.obj["spec"]["model"] = {"alias": {"modelName": "guide", "name": "production"}}
    await world.settle()
    assert conditions(world.obj)["Ready"] == ("False", "AliasNotFound")
    assert "add it to spec.aliases" in world.obj["status"]["message"]

    world.kube.put(approved(aliases=["production"]))
    await world.settle()
    assert world.weights() == {"guide-v1": 100}

    world.kube.put(approved("guide-v2", aliases=["production"]))
    await world.settle()
    assert conditions(world.obj)["Reconciling"] == ("True", "AliasAmbiguous")
    assert "guide-v1 and guide-v2 have the alias production" in world.obj["status"]["message"]
    assert world.weights() == {"guide-v1": 100}

    world.kube.put(approved())
    await world.settle()
    assert world.weights() == {"guide-v1": 90, "guide-v2": 10}

    world.kube.put(approved("guide-v2"), approved("guide-v3", aliases=["production"]))
    await world.settle()
    assert world.weights() == {"guide-v1": 90, "guide-v3": 10}


# --- providers --------------------------------------------------------------------------------


async def test_a_mesh_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.kube.unknown = {"networking.istio.io/v1"}
    await world.settle()
    assert conditions(world.obj)["Ready"] == ("False", "IstioNotInstalled")
    assert "install it, or set traffic.provider to another one" in world.obj["status"]["message"]
    world.kube.unknown = set()
    await world.settle()
    assert conditions(world.obj)["Ready"] == ("True", "Serving")


async def test_leaving_a_mesh_removes_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.settle()
    assert world.kube.of("VirtualService")
    assert world.kube.of("DestinationRule")
    world.obj["spec"]["traffic"] = {"provider": "None"}
    await world.settle()
    kinds = {kind for kind, _ in world.kube.objects}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "ModelVersion",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }
    assert world.obj["status"]["traffic"]["provider"] == "None"
    assert "traffic.provider Istio has all of them" in world.obj["status"]["traffic"]["message"]


async def test_a_canary_without_a_prometheus_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    result = await reconcile(world.kube, CONFIG, world.obj, world.kube.children(world.obj), NOW)
    accepted = {c["type"]: c for c in result.status["conditions"]}["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "PrometheusNotConfigured")
    assert "set prometheus.url of the chart" in accepted["message"]
    assert not world.kube.of("Deployment")


async def test_what_a_left_mesh_had_goes_even_if_a_write_fails_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.settle()
    world.obj["spec"]["traffic"] = {"provider": "None"}
    world.move("guide-v2")
    world.kube.refuse["Deployment"] = Forbidden("exceeded quota", 403)
    await world.settle()
    assert world.kube.of("VirtualService"), "nothing is pruned after a refusal"
    world.kube.refuse.clear()
    await world.settle()
    assert not world.kube.of("VirtualService")


async def test_a_service_whose_mesh_went_away_still_tells_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, traffic={"provider": "None"})
    await world.settle()
    world.obj["spec"]["traffic"] = {"provider": "Istio"}
    world.kube.unknown = {"networking.istio.io/v1", "security.istio.io/v1"}
    await world.settle()
    assert conditions(world.obj)["Ready"] == ("True", "Serving")
    assert conditions(world.obj)["Reconciling"] == ("True", "IstioNotInstalled")
    run_deployment(world.kube, revisions(world.kube)[0], ready=0)
    await world.settle(pods=False)
    assert conditions(world.obj)["Ready"] == ("False", "Loading")


async def test_what_happens_while_a_check_is_made_is_seen_by_the_decision(canary: World) -> None:
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v1": 50, "guide-v2": 50}
    canary.now += INTERVAL
    await canary.turn()
    assert canary.check, "the last check, which passes"
    canary.kube.put(version("guide-v2", status={"observedGeneration": 1, "verifiedDigest": DIGEST}))
    await canary.settle()
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["rejected"]["reason"] == "ApprovalRevoked"


async def test_requests_are_led_away_before_the_pods_of_a_withdrawn_candidate_end(canary: World) -> None:
    canary.kube.writes.clear()
    canary.kube.put(version("guide-v2", status={"observedGeneration": 1, "verifiedDigest": DIGEST}))
    await canary.turn()
    kinds = [(verb, kind) for verb, kind, _ in canary.kube.writes]
    assert kinds.index(("apply", "VirtualService")) < kinds.index(("apply", "DestinationRule"))
    assert kinds.index(("apply", "DestinationRule")) < kinds.index(("delete", "Deployment"))


async def test_it_is_ready_while_a_plain_service_leads_to_both_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, traffic={"provider": "None"}, replicas=4)
    await world.settle()
    world.move("guide-v2")
    await world.settle()
    assert selected(world.kube) is None, "both"
    assert world.obj["status"]["candidate"]["weight"] == 10
    assert conditions(world.obj)["Ready"] == ("True", "Serving")
    assert world.obj["status"]["url"]


async def test_a_stable_revision_that_fails_after_a_rollback_is_what_ready_speaks_of(canary: World) -> None:
    canary.verdict = Verdict.FAIL
    await canary.settle(seconds=10)
    stable = canary.obj["status"]["stable"]["revision"]
    run_deployment(canary.kube, stable, ready=0)
    await canary.settle(pods=False)
    assert conditions(canary.obj)["Ready"] == ("False", "Loading")
    assert conditions(canary.obj)["Stalled"] == ("True", "RolledBack")
    assert "guide-v1 serves" not in canary.obj["status"]["message"]


async def test_another_image_of_the_server_is_no_reason_to_try_a_rejected_version_again(canary: World) -> None:
    canary.verdict = Verdict.FAIL
    await canary.settle(seconds=10)
    canary.settings = replace(MEASURED, server_image="tunewright/server:next")
    await canary.settle(seconds=600)
    assert canary.weights() == {"guide-v1": 100}
    assert conditions(canary.obj)["Degraded"] == ("True", "RolledBack")


def test_each_decision_is_an_event_once() -> None:
    decision = {"time": "t1", "decision": "Held", "revision": "b", "version": "v2", "weight": 10, "reason": "TTFTP95"}
    held = decision | {"message": "slow", "count": 1}
    again = held | {"time": "t2", "count": 2}
    promoted = decision | {"time": "t3", "decision": "Promoted", "weight": 100, "reason": "Passed", "message": "all"}
    assert compute_events({}, {"history": [held]}) == (Event("Normal", "Held", "slow"),)
    assert compute_events({"history": [held]}, {"history": [again]}) == ()
    assert compute_events({"history": [again]}, {"history": [promoted, again]}) == (Event("Normal", "Promoted", "all"),)
    undone = promoted | {"decision": "RolledBack"}
    assert compute_events({"history": [again]}, {"history": [undone, again]}) == (), "the condition Degraded tells it"


async def test_a_decision_that_was_carried_out_late_is_judged_from_then_on(canary: World) -> None:
    """The operator ended between the decision and the route, and was away for longer than an interval."""
    before = copy.deepcopy(canary.kube.objects)
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v1": 50, "guide-v2": 50}
    canary.kube.objects = before
    canary.checks = 0
    await canary.settle(seconds=30)
    assert canary.weights() == {"guide-v1": 50, "guide-v2": 50}
    assert canary.checks == 0, "there was nothing to see of this weight yet"
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v2": 100}


async def test_what_was_left_late_is_removed_late(canary: World) -> None:
    await canary.settle(seconds=10)
    before = copy.deepcopy(canary.kube.objects)
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v2": 100}
    canary.kube.objects = before
    await canary.settle(seconds=30)
    assert canary.weights() == {"guide-v2": 100}
    assert len(revisions(canary.kube)) == 2, "a proxy may still send requests to the old pods"
    (rule,) = canary.kube.of("DestinationRule")
    assert len(rule["spec"]["subsets"]) == 2
    await canary.settle(seconds=RETIRE_SECONDS)
    assert len(revisions(canary.kube)) == 1


async def test_a_change_of_the_routes_alone_rewrites_no_history(canary: World) -> None:
    for _ in range(4):
        await canary.settle(seconds=10)
    history = copy.deepcopy(canary.obj["status"]["history"])
    canary.obj["spec"]["traffic"] = {"provider": "Istio", "timeout": "10m"}
    await canary.settle(seconds=3600)
    assert canary.obj["status"]["history"] == history
    assert canary.kube.of("VirtualService")[0]["spec"]["http"][-1]["timeout"] == "10m"


# --- what somebody else edits -----------------------------------------------------------------


@pytest.mark.parametrize(("version_name", "wanted"), [("guide-v1", 2), ("guide-v2", 2)])
async def test_a_deployment_that_somebody_scaled_gets_its_pods_back(
    monkeypatch: pytest.MonkeyPatch, version_name: str, wanted: int
) -> None:
    world = World(monkeypatch, replicas=2)
    await world.settle()
    world.move("guide-v2")
    await world.settle()
    (deployment,) = [d for d in world.kube.of("Deployment") if d["metadata"]["labels"][LABEL_VERSION] == version_name]
    for replicas in (5, 0):
        deployment["spec"]["replicas"] = replicas
        deployment["metadata"]["generation"] += 1
        await world.turn()
        await world.turn()
        assert [d["spec"]["replicas"] for d in world.kube.of("Deployment")] == [wanted, wanted]


async def test_a_service_whose_selector_somebody_edited_is_not_ready_until_it_leads_here_again(canary: World) -> None:
    service = canary.kube.objects["Service", "guide"]
    ours = copy.deepcopy(service["spec"])
    for edited in ({"app": "other"}, {}, ours["selector"] | {"app": "other"}):
        service = canary.kube.objects["Service", "guide"]
        service["spec"]["selector"] = edited
        canary.kube.refuse["Service"] = Forbidden("denied by policy", 403)
        await canary.turn()
        assert conditions(canary.obj)["Ready"] == ("False", "ApplyRefused")
        assert "url" not in canary.obj["status"]
        canary.kube.refuse.clear()
        await canary.settle()
        assert canary.kube.objects["Service", "guide"]["spec"] == ours
        assert conditions(canary.obj)["Ready"] == ("True", "Serving")


async def test_a_service_that_leads_elsewhere_is_not_ready_while_the_spec_cannot_be_read(canary: World) -> None:
    canary.kube.objects["Service", "guide"]["spec"]["selector"] = {"app": "other"}
    canary.obj["spec"]["replicas"] = "many"
    await canary.turn()
    assert conditions(canary.obj)["Ready"] == ("False", "InvalidSpec")
    assert "url" not in canary.obj["status"]


@pytest.mark.parametrize("kind", ["VirtualService", "DestinationRule", "PeerAuthentication"])
async def test_a_route_that_somebody_edited_is_written_again(canary: World, kind: str) -> None:
    (route,) = canary.kube.of(kind)
    ours = copy.deepcopy(route["spec"])
    match kind:
        case "VirtualService":
            first, second = route["spec"]["http"][-1]["route"]
            first["weight"], second["weight"] = 0, 100
        case "DestinationRule":
            route["spec"]["subsets"].pop()
        case "PeerAuthentication":
            del route["spec"]["mtls"]
    await canary.turn()
    (route,) = canary.kube.of(kind)
    assert route["spec"] == ours


async def test_what_others_add_to_a_route_stays(canary: World) -> None:
    for kind in ("VirtualService", "Service"):
        canary.kube.of(kind)[0]["spec"]["defaulted"] = {"by": "the apiserver"}
    canary.kube.writes.clear()
    await canary.settle()
    assert canary.kube.writes == []


# --- while a check is made --------------------------------------------------------------------


async def test_an_abort_does_not_wait_for_probes_that_hang(canary: World) -> None:
    canary.probes_hang = True
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v1": 90, "guide-v2": 10}
    canary.ask("abort")
    await canary.turn()
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["rejected"]["reason"] == "Aborted"


async def test_status_is_up_to_date_while_a_check_is_made_and_nobody_runs_in_circles(canary: World) -> None:
    canary.probes_hang = True
    canary.now += INTERVAL
    run_deployment(canary.kube, canary.obj["status"]["stable"]["revision"], ready=0)
    obj = copy.deepcopy(canary.obj)
    first = await reconcile(canary.kube, MEASURED, obj, canary.kube.children(obj), canary.now)
    assert {c["type"]: c["status"] for c in first.status["conditions"]}["Ready"] == "False"
    assert first.requeue_after == MEASURED.recheck_interval
    obj["status"] = first.status
    second = await reconcile(canary.kube, MEASURED, obj, canary.kube.children(obj), canary.now + timedelta(seconds=9))
    assert first.check
    assert second.check == first.check, "the same check goes on"


async def test_a_check_ends_with_the_candidate_that_it_looks_at(canary: World) -> None:
    canary.now += INTERVAL
    obj = copy.deepcopy(canary.obj)
    assert (await reconcile(canary.kube, MEASURED, obj, canary.kube.children(obj), canary.now)).check
    obj["spec"]["model"] = {"versionRef": {"name": "guide-v3"}}
    assert (await reconcile(canary.kube, MEASURED, obj, canary.kube.children(obj), canary.now)).check is None


# --- what the apiserver refuses ---------------------------------------------------------------


async def test_a_rollback_does_not_wait_for_another_object_that_is_refused(canary: World) -> None:
    canary.obj["spec"]["traffic"] = {"provider": "Istio", "hashHeader": "x-user"}
    canary.kube.refuse["DestinationRule"] = Invalid("admission webhook denied the request", 422)
    canary.ask("abort")
    await canary.turn()
    assert canary.weights() == {"guide-v1": 100}
    assert canary.obj["status"]["message"] == "a child cannot be created: admission webhook denied the request"


async def test_a_rollback_that_cannot_be_carried_out_is_not_told_as_one(canary: World) -> None:
    canary.kube.refuse["VirtualService"] = Invalid("admission webhook denied the request", 422)
    canary.ask("abort")
    await canary.turn()
    assert canary.weights() == {"guide-v1": 90, "guide-v2": 10}
    assert canary.obj["status"]["message"] == (
        "a child cannot be created: admission webhook denied the request; the traffic is still as before"
    )
    canary.kube.refuse.clear()
    await canary.turn()
    assert canary.weights() == {"guide-v1": 100}


async def test_a_rollback_scales_the_stable_revision_up_again_whatever_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, replicas=2)
    await world.settle()
    world.move("guide-v2")
    await world.settle()
    stable = next(d for d in world.kube.of("Deployment") if d["metadata"]["labels"][LABEL_VERSION] == "guide-v1")
    stable["spec"]["replicas"] = 0
    world.kube.refuse["VirtualService"] = Invalid("admission webhook denied the request", 422)
    world.ask("abort")
    await world.turn()
    assert stable["spec"]["replicas"] == 2


async def test_a_refused_object_that_shares_no_requests_stops_no_check(canary: World) -> None:
    canary.obj["spec"]["traffic"] = {"provider": "Istio", "hashHeader": "x-user"}
    canary.kube.refuse["DestinationRule"] = Invalid("admission webhook denied the request", 422)
    canary.verdict = Verdict.FAIL
    for _ in range(4):
        canary.now += timedelta(seconds=5)
        await canary.turn()
    assert canary.checks == 1
    assert canary.weights() == {"guide-v1": 100}


async def test_nothing_is_measured_while_the_candidate_has_not_got_its_share(canary: World) -> None:
    canary.now += INTERVAL
    await canary.turn()
    canary.kube.refuse["VirtualService"] = Invalid("admission webhook denied the request", 422)
    await canary.turn()
    assert canary.obj["status"]["candidate"]["weight"] == 50
    assert canary.weights() == {"guide-v1": 90, "guide-v2": 10}
    canary.checks = 0
    for _ in range(6):
        canary.now += timedelta(seconds=5)
        await canary.turn()
    assert canary.checks == 0
    assert canary.obj["status"]["message"].endswith("the traffic is still as before")


@pytest.mark.parametrize("error", [Invalid("admission webhook denied the request", 422), Transient("busy", 503)])
async def test_nothing_of_a_mesh_stays_that_was_entered_halfway(
    monkeypatch: pytest.MonkeyPatch, error: KubeError
) -> None:
    world = World(monkeypatch, traffic={"provider": "None"})
    await world.settle()
    before, status = set(world.kube.objects), copy.deepcopy(world.obj["status"])
    world.obj["spec"]["traffic"] = {"provider": "Istio", "access": {"namespaces": ["shop"]}}
    world.kube.refuse["VirtualService"] = error
    await world.turn()
    assert world.kube.of("PeerAuthentication")
    assert world.kube.of("AuthorizationPolicy")
    world.obj["spec"]["traffic"] = {"provider": "None"}
    await world.settle()
    assert set(world.kube.objects) == before
    assert world.obj["status"] == status


async def test_what_was_carried_out_long_ago_keeps_its_time(canary: World) -> None:
    """The operator ends between a decision about guide-v3 and its route, a day after guide-v2 was promoted."""
    for _ in range(4):
        await canary.settle(seconds=10)
    await canary.settle(seconds=86_400)
    canary.move("guide-v3")
    await canary.settle()
    before = copy.deepcopy(canary.kube.objects)
    await canary.settle(seconds=10)
    assert canary.weights() == {"guide-v2": 50, "guide-v3": 50}
    canary.kube.objects = before
    status = copy.deepcopy(canary.obj["status"])
    await canary.settle(seconds=5)
    assert canary.weights() == {"guide-v2": 50, "guide-v3": 50}
    assert canary.obj["status"]["history"] == status["history"]
    assert canary.obj["status"]["candidate"]["checkedAt"] > status["candidate"]["checkedAt"]
    assert compute_events(status, canary.obj["status"]) == ()
    assert new_decisions(status, canary.obj["status"]) == []


async def test_a_change_of_the_routes_alone_begins_no_new_window(canary: World) -> None:
    before = copy.deepcopy(canary.obj["status"])
    canary.obj["spec"]["traffic"] = {"provider": "Istio", "timeout": "10m"}
    await canary.settle(seconds=5)
    assert canary.kube.of("VirtualService")[0]["spec"]["http"][-1]["timeout"] == "10m"
    assert canary.obj["status"] == before


async def test_a_gateway_that_does_not_take_the_route_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = {"provider": "GatewayAPI", "gateways": ["edge/public"], "hosts": ["guide.example.com"]}
    world = World(monkeypatch, traffic=traffic)
    await world.settle()
    assert conditions(world.obj) == {"Accepted": ("True", "Accepted"), "Ready": ("True", "Serving")}
    (route,) = world.kube.of("HTTPRoute")
    accepted = {"type": "Accepted", "status": "True", "message": "taken", "observedGeneration": 1}
    refused = accepted | {"status": "False", "message": "no listener has the host guide.example.com"}
    parent = {"parentRef": {"namespace": "edge", "name": "public"}}
    route["status"] = {"parents": [parent | {"conditions": [refused]}]}
    await world.settle()
    assert conditions(world.obj)["Reconciling"] == ("True", "RouteNotAccepted")
    assert conditions(world.obj)["Ready"] == ("True", "Serving"), "inside the cluster"
    assert world.obj["status"]["message"] == (
        "Gateway edge/public does not take the HTTPRoute: no listener has the host guide.example.com"
    )
    world.move("guide-v2")
    await world.settle()
    assert conditions(world.obj)["Reconciling"] == ("True", "Progressing"), "it has not seen the newest route yet"


def add_pods(world: World) -> None:
    """A ready pod for each Deployment, where it can be asked."""
    for deployment in world.kube.of("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        one = pod(f"{deployment['metadata']['name']}-x", labels, ready=True)
        one["status"] |= {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]}
        world.kube.put(one)


async def test_a_rollback_does_not_wait_for_a_pod_that_says_nothing_of_its_speed(canary: World) -> None:
    add_pods(canary)
    canary.ask("abort")
    await canary.turn()
    assert canary.asked == [{"guide-v1": 100}]


async def test_the_speed_of_the_newest_revision_is_asked_for_once(canary: World) -> None:
    speed = ServerPerformance(ttft_milliseconds=70, tpot_milliseconds=20, tokens_per_second=50)
    canary.readiness = ServerReadiness(state="Serving", message="", performance=speed)
    await canary.settle()
    assert "performance" not in canary.obj["status"], "no pod is there to be asked"
    add_pods(canary)
    await canary.settle()
    candidate = canary.obj["status"]["candidate"]["revision"]
    expected = {"revision": candidate, "ttftMilliseconds": 70, "tpotMilliseconds": 20, "tokensPerSecond": 50}
    assert canary.obj["status"]["performance"] == expected
    await canary.settle(seconds=1)
    assert len(canary.asked) == 1, "a pod measures itself once, at its start"
    canary.ask("abort")
    await canary.settle()
    assert canary.obj["status"]["performance"] == expected | {"revision": canary.obj["status"]["stable"]["revision"]}
    assert len(canary.asked) == 2


async def test_a_stable_revision_that_was_deleted_after_a_rollback_is_told_with_the_way_out(canary: World) -> None:
    canary.verdict = Verdict.FAIL
    await canary.settle(seconds=10)
    await canary.settle(seconds=RETIRE_SECONDS)
    (deployment,) = canary.kube.of("Deployment")
    await canary.kube.delete(deployment)
    await canary.settle()
    await canary.settle(seconds=60)
    assert conditions(canary.obj) == {
        "Accepted": ("True", "Accepted"),
        "Ready": ("False", "StableGone"),
        "Stalled": ("True", "StableGone"),
    }
    assert canary.obj["status"]["message"] == (
        "the Deployment of guide-v1 is gone, and guide-v2 was rolled back (TTFTP95): nothing answers. "
        "Set spec.model to guide-v1"
    )
    canary.move("guide-v1")
    await canary.settle()
    assert conditions(canary.obj) == {"Accepted": ("True", "Accepted"), "Ready": ("True", "Serving")}


async def test_the_share_that_a_plain_service_really_gives_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, traffic={"provider": "None"})
    await world.settle()
    world.move("guide-v2")
    await world.settle()
    assert "share of the pods, 50 percent instead of 10;" in world.obj["status"]["traffic"]["message"]
