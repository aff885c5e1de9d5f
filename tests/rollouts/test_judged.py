"""Rollouts that the numbers decide: what is good is promoted step by step, what is bad is undone and says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.rollouts.stage import CANARY, INTERVAL, Stage
from tunewright_api.names import HEADER_REVISION

pytestmark = pytest.mark.timeout(300)

PROMOTED = [("Started", 0), ("Advanced", 20), ("Advanced", 50), ("Promoted", 100)]
UNDONE = [("Started", 0), ("Advanced", 20), ("RolledBack", 0)]


def steps(stage: Stage) -> list[tuple[str, int]]:
    """The history without reasons."""
    return [(decision, weight) for decision, weight, _ in stage.decisions()]


@pytest.mark.scenario("promoted")
def test_a_good_version_is_promoted_step_by_step_without_a_failed_request(stage: Stage) -> None:
    load = stage.start("v1")
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    stage.wait("an answer from v2", lambda: stage.name("v2") in load.versions())
    by_name = stage.ask(headers={HEADER_REVISION: candidate["revision"]})
    assert by_name.version == stage.name("v2"), by_name
    status = stage.settled("v2")
    assert steps(stage) == PROMOTED
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 50, 100]
    assert status["analysis"]["verdict"] == "Pass"
    assert {metric["name"] for metric in status["analysis"]["metrics"]} == {m["name"] for m in CANARY["metrics"]}
    assert all(
        metric["verdict"] == "Pass" and metric["candidate"] is not None for metric in status["analysis"]["metrics"]
    )
    # What the scripted server says it measured at its start.
    speed = {"ttftMilliseconds": 10.0, "tpotMilliseconds": 4.0, "tokensPerSecond": 250.0}
    assert status["performance"] == {"revision": candidate["revision"], **speed}
    stage.wait("all answers from v2", lambda: stage.newest(load, 10) == {stage.name("v2")})
    assert stage.stop(load).failures() == []
    stage.wait("the pods of v1 gone", lambda: not stage.pods("v1"))


@pytest.mark.scenario("slow-first-token", timed=True)
def test_a_slow_first_token_is_undone(stage: Stage) -> None:
    undone(stage, {"first_token": 0.6}, "TTFTP95", lambda value: value > 250)


@pytest.mark.scenario("slow-tokens", timed=True)
def test_slow_tokens_are_undone(stage: Stage) -> None:
    undone(stage, {"per_token": 0.15}, "TPOTP95", lambda value: value > 60)


@pytest.mark.scenario("some-errors", timed=True)
def test_some_errors_are_undone(stage: Stage) -> None:
    """Every second request: the first window may hold two of them, which Prometheus extrapolates to three."""
    undone(stage, {"errors": 0.5}, "ErrorRate", lambda value: value > 1)


@pytest.mark.scenario("only-errors", timed=True)
def test_nothing_but_errors_is_undone(stage: Stage) -> None:
    """Envoy ejects such a pod after some errors, and then answers in its place: the pod has still shown enough."""
    undone(stage, {"errors": 1.0}, "ErrorRate", lambda value: value > 1)


@pytest.mark.scenario("broken-streams", timed=True)
def test_broken_streams_are_undone(stage: Stage) -> None:
    undone(stage, {"broken": 0.5}, "ErrorRate", lambda value: value > 1)


@pytest.mark.scenario("cut-answers", timed=True)
def test_answers_that_the_engine_cuts_short_are_undone(stage: Stage) -> None:
    undone(stage, {"aborted": 0.5}, "CompletionRate", lambda value: value < 95)


def undone(stage: Stage, bad: dict[str, float], metric: str, breach: Callable[[float], bool]) -> None:
    """A version with this behaviour gets the first step and no more."""
    load = stage.start("v1")
    stage.behave("v2", **bad)
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    status = stage.rolled_back(metric)
    assert status["stable"]["version"] == stage.name("v1")
    assert steps(stage) == UNDONE
    assert stage.decisions()[-1] == ("RolledBack", 0, metric)
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 0]
    (measured,) = [one for one in status["analysis"]["metrics"] if one["name"] == metric]
    assert measured["verdict"] == "Fail"
    assert breach(measured["candidate"])
    assert stage.name("v2") in status["message"]
    stage.check_undone_in_time(metric, breach, candidate["revision"])
    stage.wait("all answers from v1", lambda: stage.newest(load, 10) == {stage.name("v1")})
    stage.stop(load)
    assert {answer.version for answer in load.failures()} <= {stage.name("v2"), ""}
    stage.wait("the pods of v2 gone", lambda: not stage.pods("v2"))


@pytest.mark.scenario("wrong-answers", timed=True)
def test_wrong_answers_are_undone(stage: Stage) -> None:
    probes = {
        "prompts": [
            {"name": "capital", "prompt": "Capital of France?", "regex": "(?i)paris"},
            {"name": "sum", "prompt": "2 + 2?", "exact": "4"},
        ],
        "timeout": "20s",
    }
    stage.behave("v1", answers={"2 + 2?": "4"})
    stage.behave("v2", answers={"2 + 2?": "5"})
    load = stage.start("v1", rollout={**CANARY, "probes": probes})
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    status = stage.rolled_back("WrongAnswers")
    assert (status["analysis"]["probes"]["passed"], status["analysis"]["probes"]["total"]) == (1, 2)
    assert "sum" in status["analysis"]["probes"]["message"]
    assert steps(stage) == UNDONE
    revision = candidate["revision"]
    stage.check_promise("the wrong version got its weight", stage.given(revision), stage.undone(revision))
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("no-traffic")
def test_a_version_that_nobody_asks_is_never_promoted(stage: Stage) -> None:
    stage.register("v1")
    stage.serve("v1", rollout={**CANARY, "inconclusiveLimit": 3})
    stage.settled("v1")
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    status = stage.rolled_back("Inconclusive")
    assert status["analysis"]["verdict"] == "Inconclusive"
    assert steps(stage) == UNDONE
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 0]


@pytest.mark.scenario("recovers")
def test_one_bad_check_is_forgiven(stage: Stage) -> None:
    load = stage.start("v1", rollout={**CANARY, "threshold": 3})
    slow = stage.behave("v2", first_token=0.6)
    stage.register("v2")
    stage.move("v2")
    stage.wait("a failed check", lambda: stage.candidate().get("failedChecks") == 1)
    slow.first_token = 0.01
    stage.settled("v2")
    assert steps(stage) == PROMOTED
    held = [one for one in stage.status()["history"] if one["decision"] == "Held" and one["reason"] == "TTFTP95"]
    assert held
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("flaps")
def test_a_version_that_is_bad_now_and_then_is_undone(stage: Stage) -> None:
    stage.start("v1", rollout={**CANARY, "threshold": 2, "steps": [5, 10, 20, 30, 40, 50], "minRequests": 1})
    stage.steps = [5, 10, 20, 30, 40, 50]
    flapping = stage.behave("v2", errors=0.5)
    stage.register("v2")
    stage.move("v2")
    stage.wait("a failed check", lambda: stage.candidate().get("failedChecks") == 1)
    flapping.errors = 0
    first = stage.candidate()["weight"]
    stage.wait("a good check after it", lambda: stage.candidate().get("weight", 0) > first)
    flapping.errors = 0.5
    status = stage.rolled_back("ErrorRate")
    assert status["stable"]["version"] == stage.name("v1")
    decisions = [decision for decision, _ in steps(stage)]
    assert decisions[0] == "Started"
    assert decisions[-1] == "RolledBack"
    assert "Promoted" not in decisions


@pytest.mark.scenario("blue-green")
def test_blue_green_switches_all_traffic_at_once(stage: Stage) -> None:
    stage.steps = []
    load = stage.start("v1", rollout={"strategy": "BlueGreen", "interval": f"{INTERVAL}s"}, replicas=2)
    stage.register("v2")
    stage.move("v2")
    stage.settled("v2")
    assert [weights.whole for weights in stage.weights()] == [
        weights.whole for weights in stage.weights() if weights.whole
    ]
    assert len(stage.weights()) == 2
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("mirrored")
def test_copies_of_requests_show_a_slow_version_before_anybody_waits_for_it(stage: Stage) -> None:
    load = stage.start("v1", rollout={**CANARY, "mirror": True})
    stage.behave("v2", first_token=0.6)
    stage.register("v2")
    stage.move("v2")
    stage.rolled_back("TTFTP95")
    assert [one["decision"] for one in reversed(stage.status()["history"])][:2] == ["Started", "Advanced"]
    assert all(weights.whole for weights in stage.weights())
    stage.stop(load)
    assert load.failures() == []
    assert set(load.versions()) == {stage.name("v1")}


@pytest.mark.scenario("gateway-api")
def test_the_gateway_api_splits_as_istio_does(stage: Stage) -> None:
    load = stage.start("v1", provider="GatewayAPI")
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    stage.settled("v2")
    assert steps(stage) == PROMOTED
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 50, 100]
    stage.wait("all answers from v2", lambda: stage.newest(load, 10) == {stage.name("v2")})
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("no-mesh")
def test_without_a_mesh_pods_are_the_weights(stage: Stage) -> None:
    stage.publish()
    load = stage.start("v1", provider="None", replicas=4)
    stage.behave("v2", errors=0.5)
    stage.register("v2")
    stage.move("v2")
    stage.weight(20)
    assert stage.status()["traffic"]["provider"] == "None"
    assert stage.status()["traffic"]["message"]
    stage.rolled_back("ErrorRate")
    stage.wait("all answers from v1", lambda: stage.newest(load, 10) == {stage.name("v1")})
    stage.behave("v3")
    stage.register("v3")
    stage.move("v3")
    stage.settled("v3")
    stage.wait("all answers from v3", lambda: stage.newest(load, 10) == {stage.name("v3")})
    stage.stop(load)
    assert {answer.version for answer in load.failures()} <= {stage.name("v2"), ""}
