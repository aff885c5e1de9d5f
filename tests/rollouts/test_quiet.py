"""What the operator does not do: ask Prometheus when nothing is on, write when nothing changes, promote blindly."""

from __future__ import annotations

import time

import pytest

from tests.operator_process import USER
from tests.rollouts.stage import CANARY, Stage

pytestmark = pytest.mark.timeout(300)

SECONDS = 10


@pytest.mark.scenario("settled", alone=True)
def test_a_settled_service_costs_no_write_and_no_question(stage: Stage) -> None:
    with stage.arena.operator(stage.namespace, TUNEWRIGHT_SETTLED_INTERVAL_SECONDS="3"):
        stage.start("v1")
        stage.register("v2")
        stage.move("v2")
        stage.settled("v2")
        stage.wait("the pods of v1 gone", lambda: not stage.pods("v1"))
        stage.settled("v2")
        begin, mark = time.time(), stage.arena.plane.audit.mark()
        stage.wait("time to pass", lambda: time.time() >= begin + SECONDS)
        writes = stage.arena.plane.audit.writes(user=USER, since=mark)
        assert [f"{one.verb} {one.uri}" for one in writes if one.namespace == stage.namespace] == []
        rounds = stage.arena.questions.rounds(stage.namespace, stage.service)
        assert rounds, "there was a rollout before"
        assert [at for at in rounds if at >= begin] == []


@pytest.mark.scenario("prometheus-away", alone=True)
def test_nothing_is_promoted_while_prometheus_is_away(stage: Stage) -> None:
    with (
        stage.arena.another_prometheus(stage.service) as prometheus,
        stage.arena.operator(stage.namespace, TUNEWRIGHT_PROMETHEUS_URL=prometheus.url),
    ):
        load = stage.start("v1", rollout={**CANARY, "inconclusiveLimit": 100})
        stage.register("v2")
        stage.move("v2")
        candidate = stage.weight(20)
        prometheus.stop()
        missed = stage.candidate()["inconclusiveChecks"]
        stage.wait("two checks without an answer", lambda: stage.candidate()["inconclusiveChecks"] >= missed + 2)
        analysis = stage.status()["analysis"]
        assert analysis["verdict"] == "Inconclusive"
        assert "Prometheus" in analysis["message"]
        held = stage.candidate()["weight"]
        stage.wait("one more", lambda: stage.candidate()["inconclusiveChecks"] >= missed + 3)
        assert stage.candidate()["weight"] == held
        prometheus.start()
        stage.settled("v2")
        assert stage.candidate_weights(candidate["revision"]) == [0, 20, 50, 100]
        assert stage.stop(load).failures() == []


@pytest.mark.scenario("no-prometheus-at-all", alone=True)
def test_prometheus_that_stays_away_undoes_the_rollout(stage: Stage) -> None:
    with stage.arena.operator(stage.namespace, TUNEWRIGHT_PROMETHEUS_URL="http://127.0.0.1:9"):
        load = stage.start("v1", rollout={**CANARY, "inconclusiveLimit": 2})
        stage.register("v2")
        stage.move("v2")
        candidate = stage.weight(20)
        stage.rolled_back("Inconclusive")
        assert stage.candidate_weights(candidate["revision"]) == [0, 20, 0]
        assert stage.stop(load).failures() == []
