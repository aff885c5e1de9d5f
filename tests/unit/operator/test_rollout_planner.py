"""The parts of the planner: weights, gates, pods, requests, history, removal, and the sentence about the present."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.simulated_rollout import rollout
from tunewright_api.inferenceservice import InferenceServiceStatus
from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import (
    Analysis,
    CandidateStatus,
    DecisionType,
    HandledRequest,
    Phase,
    RejectedRevision,
    RequestOutcome,
    RevisionStatus,
    RolloutDecision,
    Verdict,
)
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.manifests.server import Revision
from tunewright_operator.manifests.traffic.split import Split
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.observe.times import format_time
from tunewright_operator.policies.rollout import (
    RolloutPlan,
    RolloutState,
    Window,
    World,
    describe,
    due_check,
    plan_rollout,
    read_state,
    weights_of,
)
from tunewright_operator.policies.rollout.history import record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ago(seconds: float) -> str:
    """A moment before now, as status has it."""
    return format_time(NOW - timedelta(seconds=seconds))


def pods(name: str, ready: int = 1, replicas: int = 1, **fields: Any) -> RevisionState:
    """A revision; a is of guide-v1, b of guide-v2."""
    version = {"a": "guide-v1", "b": "guide-v2", "c": "guide-v3"}[name]
    return RevisionState(name, version, replicas, ready, settled=True, stuck=False, **fields)


def world(*revisions: RevisionState, **fields: Any) -> World:
    """A world in which the spec asks for b, through Istio."""
    defaults: dict[str, Any] = {
        "now": NOW,
        "target": Revision("guide-v2", "b"),
        "provider": TrafficProvider.ISTIO,
    }
    return World(revisions={one.name: one for one in revisions}, **defaults | fields)


def on_its_way(**fields: Any) -> CandidateStatus:
    """b, at 20 percent since 30 seconds."""
    defaults: dict[str, Any] = {
        "version": "guide-v2",
        "revision": "b",
        "weight": 20,
        "ready_replicas": 1,
        "replicas": 1,
        "phase": Phase.PROGRESSING,
        "step": 1,
        "started_at": ago(100),
        "checked_at": ago(30),
    }
    return CandidateStatus(**defaults | fields)


def failed(revision: str = "b") -> Analysis:
    """A check that failed."""
    return Analysis(
        time=ago(30),
        revision=revision,
        weight=20,
        window_seconds=60,
        verdict=Verdict.FAIL,
        reason="ErrorRate",
        message="ErrorRate is 7 %, limit 1 %",
    )


def entry(decision: DecisionType, seconds: float, **fields: Any) -> RolloutDecision:
    """One entry of the history."""
    defaults: dict[str, Any] = {"revision": "b", "version": "guide-v2", "weight": 20, "reason": "TooFewRequests"}
    return RolloutDecision(time=ago(seconds), decision=decision, **defaults | fields)


# --- the spec as numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "weights"),
    [
        (rollout(), (10, 20, 30, 40, 50)),
        (rollout(stepWeight=20, maxWeight=50), (20, 40, 50)),
        (rollout(stepWeight=50, maxWeight=50), (50,)),
        (rollout(stepWeight=60), (60,)),
        (rollout(maxWeight=5), (5,)),
        (rollout(maxWeight=25), (10, 20, 25)),
        (rollout(steps=[1, 7, 100]), (1, 7, 100)),
        (rollout("BlueGreen"), ()),
        (rollout("Recreate"), ()),
    ],
    ids=str,
)
def test_weights(rules: Rollout, weights: tuple[int, ...]) -> None:
    assert weights_of(rules) == weights


@pytest.mark.parametrize(
    ("rules", "weight", "replicas"),
    [
        (rollout(steps=[1, 20, 50]), 1, 1),
        (rollout(steps=[1, 20, 50]), 20, 2),
        (rollout(steps=[1, 20, 50]), 50, 10),
        (rollout(steps=[25, 50]), 25, 3),
        (rollout("BlueGreen"), 0, 10),
    ],
    ids=str,
)
def test_without_a_provider_the_candidate_has_its_share_of_the_pods(rules: Rollout, weight: int, replicas: int) -> None:
    state = RolloutState("a", on_its_way(weight=weight, paused=True))
    seen = world(pods("a", 10, 10), pods("b", replicas, replicas), replicas=10, provider=TrafficProvider.NONE)
    assert plan_rollout(state, rules, seen).replicas == {"a": 10, "b": replicas}
    by_mesh = replace(seen, provider=TrafficProvider.ISTIO)
    assert plan_rollout(state, rollout(steps=[1, 20, 50]), by_mesh).replicas == {"a": 10, "b": 10}


@pytest.mark.parametrize(
    ("seen", "replicas"),
    [
        ([pods("a", 2, 2)], {"a": 0, "b": 0}),
        ([pods("a", 1, 0), pods("b", 0, 0)], {"a": 0, "b": 0}),
        ([pods("a", 0, 0), pods("b", 0, 0)], {"a": 0, "b": 2}),
        ([pods("a", 0, 0), pods("b", 1, 2)], {"a": 0, "b": 2}),
        ([pods("a", 1, 2), pods("b", 1, 2)], {"a": 0, "b": 2}),
    ],
    ids=["both run", "the old ones drain", "the old ones are gone", "the new ones load", "an old one came back"],
)
def test_recreate_gives_the_pods_of_the_old_revision_to_the_new_one(
    seen: list[RevisionState], replicas: dict[str, int]
) -> None:
    state = RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, checked_at=None))
    decided = plan_rollout(state, rollout("Recreate"), world(*seen, replicas=2))
    assert decided.replicas == replicas
    assert decided.split == Split("a", "b", revisions=("a", "b"))


# --- one turn ---------------------------------------------------------------------------------


def test_the_first_revision_is_stable_at_once_and_needs_no_pods_for_it() -> None:
    assert plan_rollout(RolloutState(None), rollout(), world()) == RolloutPlan(
        state=RolloutState("b"),
        split=Split("b", revisions=("b",)),
        replicas={"b": 1},
        remove=frozenset(),
        requeue_after=None,
    )


def test_nothing_is_selected_while_nothing_may_be_served() -> None:
    assert plan_rollout(RolloutState(None), rollout(), world(target=None)) == RolloutPlan(
        state=RolloutState(None), split=None, replicas={}, remove=frozenset(), requeue_after=None
    )


def test_a_rollback_is_one_plan() -> None:
    state = RolloutState("a", on_its_way())
    decided = plan_rollout(state, rollout(), world(pods("a"), pods("b", restarts=3)))
    message = "a pod of guide-v2 crashed 3 times"
    assert decided == RolloutPlan(
        state=RolloutState(
            stable="a",
            history=(entry(DecisionType.ROLLED_BACK, 0, weight=0, reason="CrashLoop", message=message),),
            rejected=RejectedRevision(
                revision="b", version="guide-v2", reason="CrashLoop", message=message, time=ago(0)
            ),
        ),
        split=Split("a", revisions=("a", "b")),
        replicas={"a": 1},
        remove=frozenset(),
        requeue_after=5,
    )


def test_what_left_goes_after_five_seconds_and_what_is_withdrawn_at_once() -> None:
    history = (entry(DecisionType.HELD, 1), entry(DecisionType.REPLACED, 3))
    seen = world(pods("a"), pods("b"), pods("c"), target=Revision("guide-v1", "a"))
    state = RolloutState("a", history=history)
    assert plan_rollout(state, rollout(), seen).remove == frozenset()
    assert plan_rollout(state, rollout(), seen).requeue_after == 2
    assert plan_rollout(state, rollout(), replace(seen, withdrawn=frozenset({"c"}))).remove == {"c"}
    later = replace(seen, now=NOW + timedelta(seconds=2))
    assert plan_rollout(state, rollout(), later).remove == {"b", "c"}
    assert plan_rollout(RolloutState("a"), rollout(), seen).remove == {"b", "c"}, "nobody knows when they left"


def test_the_window_of_a_check() -> None:
    state = RolloutState("a", on_its_way(checked_at=ago(60)))
    seen = world(pods("a"), pods("b"))
    assert due_check(state, rollout(), seen) == Window("b", "a", 20, 60, "guide-v2", "guide-v1")
    assert due_check(state, rollout(interval="61s"), seen) is None
    stable_down = world(pods("a", 0), pods("b"))
    assert due_check(state, rollout(), stable_down) == Window("b", None, 20, 60, "guide-v2", "guide-v1")
    everything = RolloutState("a", on_its_way(checked_at=ago(60), weight=100))
    assert due_check(everything, rollout(steps=[100]), seen) == Window("b", None, 100, 60, "guide-v2", "guide-v1")


def test_another_revision_of_the_same_version_is_told_apart_in_words() -> None:
    state = RolloutState("a", on_its_way(version="guide-v1", checked_at=ago(60)))
    seen = world(pods("a"), replace(pods("b"), version="guide-v1"), target=Revision("guide-v1", "b"))
    assert due_check(state, rollout(), seen) == Window("b", "a", 20, 60, "guide-v1 (b)", "guide-v1 (a)")


@pytest.mark.parametrize(
    "state",
    [
        RolloutState("a"),
        RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, checked_at=None)),
        RolloutState("a", on_its_way(weight=0, phase=Phase.WAITING, checked_at=ago(600))),
    ],
    ids=["nothing is on its way", "pods load", "a gate before the first request"],
)
def test_no_check_where_there_is_nothing_to_see(state: RolloutState) -> None:
    seen = world(pods("a"), pods("b", 0), target=Revision("guide-v1", "a") if not state.candidate else None)
    assert due_check(state, rollout(manualGates=[0]), seen) is None


def test_no_check_when_something_else_decides() -> None:
    state = RolloutState("a", on_its_way(checked_at=ago(600)))
    assert due_check(state, rollout(), world(pods("a"), pods("b"), request="abort@b")) is None
    assert due_check(state, rollout(), world(pods("a"), pods("b"), target=Revision("guide-v3", "c"))) is None
    assert due_check(state, rollout(), world(pods("a"), pods("b"), withdrawn=frozenset({"b"}))) is None


@pytest.mark.parametrize(
    ("state", "seen", "rules", "seconds"),
    [
        (RolloutState("a", on_its_way()), world(pods("a"), pods("b")), rollout(), 30),
        (
            RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, checked_at=None)),
            world(pods("a"), pods("b", 0)),
            rollout(progressDeadline="2m"),
            20,
        ),
        (
            RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, checked_at=None, paused=True)),
            world(pods("a"), pods("b", 0)),
            rollout(progressDeadline="2m"),
            None,
        ),
        (RolloutState("b"), world(pods("b")), rollout(), None),
    ],
    ids=["the next check", "the deadline", "a person holds it", "at rest"],
)
def test_when_time_alone_calls_for_a_decision(
    state: RolloutState, seen: World, rules: Rollout, seconds: float | None
) -> None:
    assert plan_rollout(state, rules, seen).requeue_after == seconds


def test_a_clock_that_was_put_back_delays_no_check_and_no_removal() -> None:
    state = RolloutState("a", on_its_way(started_at=ago(-500), checked_at=ago(-1000)))
    decided = plan_rollout(state, rollout(), world(pods("a"), pods("b")))
    assert decided.state.candidate == on_its_way(started_at=ago(0), checked_at=ago(0))
    assert decided.requeue_after == 60
    left = RolloutState("a", history=(entry(DecisionType.REPLACED, -1000),))
    decided = plan_rollout(left, rollout(), world(pods("a"), pods("b"), target=Revision("guide-v1", "a")))
    assert decided.state.history == (entry(DecisionType.REPLACED, 0),)
    assert decided.requeue_after == 5


@pytest.mark.parametrize(
    ("rules", "had", "gets"),
    [
        (rollout("BlueGreen", mirror=True, mirrorWeight=40, autoPromote=False), 100, 40),
        (rollout("BlueGreen", mirror=True, autoPromote=False), 0, 100),
        (rollout("BlueGreen", autoPromote=False), 100, 0),
        (rollout(mirror=True, mirrorWeight=40, manualGates=[0]), 100, 40),
        (rollout(mirror=True, manualGates=[0]), 0, 0),
    ],
    ids=["fewer copies", "copies begin", "copies end", "fewer for a canary", "a canary gets them behind the gate"],
)
def test_a_waiting_candidate_gets_the_copies_that_the_spec_asks_for_now(rules: Rollout, had: int, gets: int) -> None:
    waiting = on_its_way(weight=0, mirror_weight=had, phase=Phase.WAITING)
    split = plan_rollout(RolloutState("a", waiting), rules, world(pods("a"), pods("b"))).split
    assert split == Split("a", "b", 0, gets, ("a", "b"))


# --- requests ---------------------------------------------------------------------------------


@dataclass
class Asked:
    """A request, and what becomes of it."""

    request: str
    outcome: str
    message: str
    state: RolloutState = field(default_factory=lambda: RolloutState("a", on_its_way()))
    rules: Rollout = field(default_factory=rollout)
    seen: tuple[RevisionState, ...] = field(default_factory=lambda: (pods("a"), pods("b")))
    provider: TrafficProvider = TrafficProvider.ISTIO
    replicas: int = 1


FORM = (
    "is no request: write VERB@REVISION or VERB@REVISION/ID, such as promote@1a2b3c4d, with one of the verbs promote, "
    "abort, pause, resume, retry"
)
REJECTED = RolloutState(
    "a",
    history=(entry(DecisionType.ROLLED_BACK, 0),),
    rejected=RejectedRevision(revision="b", version="guide-v2", reason="ErrorRate", message="too many", time=ago(9)),
)
GATE = rollout(steps=[20, 50], manualGates=[20])
WAITING = RolloutState("a", on_its_way(phase=Phase.WAITING))
REQUESTS = {
    "promote": Asked("promote@b/1", "Done", "guide-v2 was promoted"),
    "promote while a pod is not ready": Asked(
        "promote@b",
        "Refused",
        "1 of 2 pods of guide-v2 are ready: promote it once all are, or abort it",
        seen=(pods("a", 2, 2), pods("b", 1, 2)),
        replicas=2,
    ),
    "promote while only a share of the pods exists": Asked(
        "promote@b",
        "Refused",
        "guide-v2 has 1 of 4 pods at 10 %, and without a traffic provider it gets the others at its last step (50 %): "
        "promote it there, or abort it",
        RolloutState("a", on_its_way(weight=10)),
        seen=(pods("a", 4, 4), pods("b", 1, 1)),
        provider=TrafficProvider.NONE,
        replicas=4,
    ),
    "promote at a gate while only a share of the pods exists": Asked(
        "promote@b",
        "Refused",
        "guide-v2 has 1 of 4 pods at 20 %, and without a traffic provider it gets the others at its last step (50 %): "
        "open the gate with resume@b",
        RolloutState("a", on_its_way(phase=Phase.WAITING)),
        rollout(steps=[20, 50], manualGates=[20]),
        seen=(pods("a", 4, 4), pods("b", 1, 1)),
        provider=TrafficProvider.NONE,
        replicas=4,
    ),
    "promote after a failed check": Asked(
        "promote@b",
        "Refused",
        "the newest check of guide-v2 failed (ErrorRate is 7 %, limit 1 %): wait for a good one",
        RolloutState("a", on_its_way(), analysis=failed()),
        rollout(threshold=3),
    ),
    "promote what answers already": Asked(
        "promote@b",
        "Refused",
        "there is nothing to promote: no revision is on its way; b is the stable revision already",
        RolloutState("b"),
    ),
    "abort": Asked("abort@b", "Done", "guide-v2 was aborted"),
    "abort what the person did not see": Asked(
        "abort@c", "Refused", "c is not on its way, guide-v2 is: write abort@b if you mean that"
    ),
    "abort nothing": Asked("abort@b", "Refused", "there is nothing to abort: no revision is on its way", REJECTED),
    "pause": Asked(
        "pause@b", "Done", "guide-v2 is paused: it gets 20 % of the traffic until somebody runs tunewright resume"
    ),
    "pause twice": Asked(
        "pause@b/2", "Refused", "guide-v2 is paused already", RolloutState("a", on_its_way(paused=True))
    ),
    "pause a recreation": Asked(
        "pause@b",
        "Refused",
        "strategy Recreate cannot be paused: nothing answers until guide-v2 is ready; abort it instead",
        RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, checked_at=None)),
        rollout("Recreate"),
        (pods("a", 0, 0), pods("b", 0, 1)),
    ),
    "resume after a pause": Asked("resume@b", "Done", "guide-v2 goes on", RolloutState("a", on_its_way(paused=True))),
    "resume after a pause at a gate": Asked(
        "resume@b",
        "Done",
        "guide-v2 goes on; the gate is still closed: resume it again",
        RolloutState("a", on_its_way(paused=True, phase=Phase.WAITING)),
        GATE,
    ),
    "resume at a gate": Asked("resume@b", "Done", "a person opened the gate of guide-v2 at 20 %", WAITING, GATE),
    "resume where a promotion is waited for": Asked(
        "resume@b",
        "Refused",
        "guide-v2 is not paused and no gate holds it: use promote@b",
        WAITING,
        rollout(steps=[20], autoPromote=False),
    ),
    "resume where nothing waits": Asked("resume@b", "Refused", "guide-v2 is not paused and no gate holds it"),
    "retry": Asked("retry@b", "Done", "guide-v2 is tried again", REJECTED),
    "retry what was not rolled back": Asked("retry@c", "Refused", "c was not rolled back, b (guide-v2) was", REJECTED),
    "retry nothing": Asked("retry@b", "Refused", "b was not rolled back"),
    "no revision": Asked("promote", "Refused", f"'promote' {FORM}"),
    "an unknown verb": Asked("promot@b", "Refused", f"'promot@b' {FORM}"),
    "two revisions": Asked("promote@a@b", "Refused", f"'promote@a@b' {FORM}"),
}


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_handled_once_and_echoed(asked: Asked) -> None:
    seen = world(*asked.seen, request=asked.request, provider=asked.provider, replicas=asked.replicas)
    state = plan_rollout(asked.state, asked.rules, seen).state
    assert state.handled == HandledRequest(
        request=asked.request, outcome=RequestOutcome(asked.outcome), message=asked.message, time=ago(0)
    )
    later = replace(seen, now=NOW + timedelta(seconds=1))
    assert plan_rollout(state, asked.rules, later).state == state
    if asked.outcome == "Refused":
        silent = replace(seen, request=None)
        assert replace(state, handled=None) == plan_rollout(asked.state, asked.rules, silent).state


def test_a_request_that_is_too_long_for_status_is_handled_once_too() -> None:
    seen = world(pods("a"), pods("b"), request="x" * 5000)
    state = plan_rollout(RolloutState("a", on_its_way()), rollout(), seen).state
    assert plan_rollout(state, rollout(), replace(seen, now=NOW + timedelta(seconds=9))).state == state


def test_the_same_words_with_another_id_are_another_request() -> None:
    state = RolloutState("a", on_its_way())
    state = plan_rollout(state, rollout(), world(pods("a"), pods("b"), request="pause@b/1")).state
    state = plan_rollout(state, rollout(), world(pods("a"), pods("b"), request="resume@b/1")).state
    state = plan_rollout(state, rollout(), world(pods("a"), pods("b"), request="pause@b/2")).state
    assert state.candidate is not None
    assert state.candidate.paused
    assert [one.decision.value for one in state.history] == ["Paused", "Resumed", "Paused"]


def test_what_is_tried_again_starts_with_a_clean_sheet() -> None:
    rejected = replace(REJECTED, analysis=failed())
    state = plan_rollout(rejected, rollout(), world(pods("a"), pods("b"), request="retry@b")).state
    assert (state.rejected, state.analysis) == (None, None)
    assert state.candidate == on_its_way(weight=10, started_at=ago(0), checked_at=ago(0))
    state = plan_rollout(state, rollout(), world(pods("a"), pods("b"), request="promote@b")).state
    assert state.stable == "b", "what failed the last time does not stand in the way"


def test_what_is_tried_again_and_is_still_broken_goes_in_the_same_turn() -> None:
    seen = world(pods("a"), pods("b", 0, restarts=3), request="retry@b")
    state = plan_rollout(REJECTED, rollout(), seen).state
    assert (state.candidate, state.rejected and state.rejected.reason) == (None, "CrashLoop")
    assert plan_rollout(state, rollout(), seen).state == state


@pytest.mark.parametrize(
    ("target", "rejected"),
    [
        (Revision("guide-v2", "b", "asked"), True),
        (Revision("guide-v2", "c", "asked"), True),
        (Revision("guide-v2", "c", "other"), False),
        (Revision("guide-v2", "b"), True),
        (Revision("guide-v2", "c"), False),
    ],
    ids=["the same", "another image", "another spec", "no fingerprint, the same name", "no fingerprint, another name"],
)
def test_a_new_server_image_does_not_try_a_rejected_spec_again(target: Revision, rejected: bool) -> None:
    first = world(pods("a"), pods("b", 0, restarts=3), target=Revision("guide-v2", "b", "asked"))
    state = plan_rollout(RolloutState("a", on_its_way()), rollout(), first).state
    assert state.rejected is not None
    assert state.rejected.fingerprint == "asked"
    later = world(pods("a"), target=target, now=NOW + timedelta(seconds=60))
    state = plan_rollout(state, rollout(), later).state
    assert (state.rejected is not None, state.candidate is None) == (rejected, rejected)


# --- history ----------------------------------------------------------------------------------


def test_equal_holds_are_one_entry_with_the_newest_time_and_sentence() -> None:
    state = RolloutState("a")
    for seconds in (180, 120, 60):
        state = record(state, entry(DecisionType.HELD, seconds, message=f"{seconds} s ago"))
    state = record(state, entry(DecisionType.HELD, 0, reason="PodsNotReady"))
    assert state.history == (
        entry(DecisionType.HELD, 0, reason="PodsNotReady"),
        entry(DecisionType.HELD, 60, message="60 s ago", count=3),
    )


def test_the_last_ten_are_kept_the_newest_first() -> None:
    state = RolloutState("a")
    for seconds in range(15, 0, -1):
        state = record(state, entry(DecisionType.ADVANCED, seconds, weight=seconds))
    assert [one.weight for one in state.history] == list(range(1, 11))


# --- status -----------------------------------------------------------------------------------


def test_the_state_is_what_status_holds() -> None:
    status = InferenceServiceStatus(
        stable=RevisionStatus(version="guide-v1", revision="a", ready_replicas=1, replicas=1),
        candidate=on_its_way(),
        analysis=failed(),
        history=[entry(DecisionType.HELD, 1)],
        rejected=REJECTED.rejected,
    )
    assert read_state(status) == RolloutState(
        "a", on_its_way(), failed(), (entry(DecisionType.HELD, 1),), REJECTED.rejected
    )


def test_where_status_was_lost_the_service_knows_who_is_stable() -> None:
    assert read_state(InferenceServiceStatus(), "a") == RolloutState("a")
    assert read_state(InferenceServiceStatus()) == RolloutState(None)


# --- the sentence about the present -----------------------------------------------------------

SENTENCES = {
    "all is done": (RolloutState("a"), rollout(), "the stable revision gets all of the traffic"),
    "nothing is served": (RolloutState(None), rollout(), "no revision may answer"),
    "rolled back": (
        REJECTED,
        rollout(),
        "guide-v2 was rolled back (ErrorRate): too many; the stable revision gets all of the traffic",
    ),
    "rolled back, and nobody is left": (
        replace(REJECTED, stable=None),
        rollout(),
        "guide-v2 was rolled back (ErrorRate): too many; nothing answers",
    ),
    "pods load": (
        RolloutState("a", on_its_way(weight=0, phase=Phase.STARTING, ready_replicas=1, replicas=3)),
        rollout(),
        "1 of 3 pods of guide-v2 are ready; it gets no traffic",
    ),
    "judged at a weight": (
        RolloutState("a", on_its_way(failed_checks=1)),
        rollout(threshold=3),
        "guide-v2 gets 20 % of the traffic; next check in ≤60s; 1 of 3 failed checks",
    ),
    "judged at a weight, without traffic": (
        RolloutState("a", on_its_way(inconclusive_checks=4)),
        rollout(),
        "guide-v2 gets 20 % of the traffic; next check in ≤60s; 0 of 1 failed checks and 4 of 30 inconclusive ones",
    ),
    "copies": (
        RolloutState("a", on_its_way(weight=0, mirror_weight=30, phase=Phase.MIRRORING)),
        rollout(mirror=True),
        "guide-v2 gets copies of 30 % of the requests, whose answers are thrown away; next check in ≤60s; "
        "0 of 1 failed checks",
    ),
    "paused": (
        RolloutState("a", on_its_way(paused=True)),
        rollout(),
        "guide-v2 gets 20 % of the traffic; paused until somebody runs tunewright resume; 0 of 1 failed checks",
    ),
    "at a gate": (
        WAITING,
        GATE,
        "guide-v2 gets 20 % of the traffic; it waits at the gate of 20 % until somebody runs tunewright resume; "
        "0 of 1 failed checks",
    ),
    "waiting for a promotion": (
        WAITING,
        rollout(steps=[20], autoPromote=False),
        "guide-v2 gets 20 % of the traffic; it may take over, and waits until somebody runs tunewright promote; "
        "0 of 1 failed checks",
    ),
    "waiting, and no longer good": (
        replace(WAITING, analysis=failed()),
        rollout(steps=[20], autoPromote=False, threshold=2),
        "guide-v2 gets 20 % of the traffic; the newest check failed: ErrorRate is 7 %, limit 1 %; 0 of 2 failed checks",
    ),
    "blue-green without checks, waiting": (
        RolloutState("a", on_its_way(weight=0, phase=Phase.WAITING)),
        rollout("BlueGreen", autoPromote=False),
        "guide-v2 gets no traffic yet; it may take over, and waits until somebody runs tunewright promote",
    ),
}


@pytest.mark.parametrize(("state", "rules", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_the_sentence_about_the_present(state: RolloutState, rules: Rollout, sentence: str) -> None:
    assert describe(state, rules) == sentence
