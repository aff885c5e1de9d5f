"""The operator is killed at each weight change: the rollout ends as an undisturbed one, on the same way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.rollouts.laws import shares_of
from tests.rollouts.stage import INTERVAL, Stage

pytestmark = pytest.mark.timeout(300)

Object = dict[str, Any]
# What a look at an object shows of the weights; equal looks in a row are one change.
Look = Callable[[Stage, str, Object], object]


def written(stage: Stage, plural: str, found: Object) -> object:
    """The route has new weights: the decision was carried out, and nobody has seen yet what comes of it."""
    if plural == "virtualservices" and found["metadata"]["name"] == f"{stage.service}-gateways":
        return shares_of(found, stage.service)
    return None


def decided(stage: Stage, plural: str, found: Object) -> object:
    """Status has a new weight: the decision may not have been carried out."""
    if plural != "inferenceservices" or found["metadata"]["name"] != stage.service:
        return None
    status = found.get("status") or {}
    return [(status.get(part) or {}).get(key) for part in ("stable", "candidate") for key in ("revision", "weight")]


# Longer than an interval: the next check is overdue when the operator is back.
AWAY_SECONDS = INTERVAL + 1.0


class Mortal:
    """An operator that is killed whenever the weights change, and started again after a while."""

    def __init__(self, stage: Stage, look: Look) -> None:
        self._stage, self._look = stage, look
        self._died = threading.Event()
        self._died_at = 0.0
        self._seen: object = None
        self.kills = 0
        self._running = stage.arena.operator(stage.namespace)
        self._operator = self._running.__enter__()
        self._deaf = stage.arena.mirror.listen(self._notice)

    def _notice(self, plural: str, found: Object) -> None:
        if found["metadata"]["namespace"] != self._stage.namespace:
            return
        seen = self._look(self._stage, plural, found)
        if seen is None or seen == self._seen:
            return
        first, self._seen = self._seen is None, seen
        if not first:
            self._operator.process.kill()
            self.kills += 1
            self._died_at = time.monotonic()
            self._died.set()

    def live_until(self, what: str, over: Callable[[], bool]) -> None:
        """Start again after each death until `over`."""

        def news() -> bool:
            return self._died.is_set() or over()

        while not over():
            self._stage.wait(what, news)
            if self._died.is_set():
                self._stage.wait("time to pass", self._is_missed)
                self.start_again()

    def _is_missed(self) -> bool:
        return time.monotonic() >= self._died_at + AWAY_SECONDS

    def start_again(self) -> None:
        """A new process."""
        self._running.__exit__(None, None, None)
        self._died.clear()
        self._running = self._stage.arena.operator(self._stage.namespace)
        self._operator = self._running.__enter__()

    def retire(self) -> None:
        """End it in peace."""
        self._deaf()
        self._running.__exit__(None, None, None)


def summary(stage: Stage, old: str, new: str, revision: str) -> Object:
    """Everything that two rollouts from one version to the next have in common."""
    status = stage.status()
    weights = [weight.shares.get(revision, 0) for weight in stage.weights()]
    named = {stage.name(old): "old", stage.name(new): "new"}
    changes = [now for before, now in zip([None, *weights], weights, strict=False) if now != before]
    return {
        "weights": changes,
        "conditions": stage.conditions(),
        "stable": (named[status["stable"]["version"]], status["stable"]["weight"]),
        "candidate": status.get("candidate"),
        "rejected": (status.get("rejected") or {}).get("reason"),
        "decisions": [
            (one["decision"], one["weight"], one["reason"])
            for one in reversed(status["history"])
            if one["revision"] == revision and one["decision"] != "Held"
        ],
    }


@pytest.mark.parametrize("look", [written, decided], ids=["written", "decided"])
@pytest.mark.scenario("killed", alone=True)
def test_an_operator_that_is_killed_at_each_weight_change_ends_as_one_that_is_not(stage: Stage, look: Look) -> None:
    with stage.arena.operator(stage.namespace):
        load = stage.start("v1")
        stage.register("v2")
        stage.move("v2")
        undisturbed = stage.weight(20)["revision"]
        stage.settled("v2")
        for number in ("v3", "v4"):
            stage.register(number)
        want = summary(stage, "v1", "v2", undisturbed)
    assert want["weights"] == [0, 20, 50, 100]

    mortal = Mortal(stage, look)
    try:
        stage.move("v3")
        mortal.live_until("v3 on its way", lambda: bool(stage.candidate()))
        killed = stage.candidate()["revision"]
        mortal.live_until("v3 promoted", lambda: stage.promoted("v3"))
        assert summary(stage, "v2", "v3", killed) == want
        assert mortal.kills >= len(want["weights"]) - 1
        assert stage.stop(load).failures() == []

        bad = stage.behave("v4", errors=0.5)
        load = stage.load()
        stage.move("v4")
        mortal.live_until("v4 undone", lambda: bool(stage.status().get("rejected")) and stage.carried_out())
        stage.rolled_back("ErrorRate")
        assert stage.weights()[-1].whole == stage.status()["stable"]["revision"]
        assert bad.errors
    finally:
        mortal.retire()
    stage.note(f"the operator was killed {mortal.kills} times")
