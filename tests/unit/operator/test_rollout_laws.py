"""What holds for every rollout, whatever happens: arbitrary pods, verdicts, requests, specs, approvals and kills."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated_rollout import Planned, Simulation, rollout, started
from tunewright_api.base import seconds
from tunewright_api.rollout import Rollout, RolloutMetric
from tunewright_api.rollout_status import DecisionType, Phase, RequestOutcome, Verdict
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.observe.pod_problem import Problem
from tunewright_operator.policies.rollout import due_check, plan_rollout, weights_of

VERSIONS = ["v1", "v2", "v3"]
PROBES = {"prompts": [{"name": "capital", "prompt": "Capital of France?", "exact": "Paris"}]}
SHORT: dict[str, Any] = {"interval": "10s", "progressDeadline": "2m", "inconclusiveLimit": 4, "minRequests": 5}
RULES = [
    rollout(**SHORT, steps=[5, 20, 50]),
    rollout(**SHORT, stepWeight=30, threshold=3, probes=PROBES),
    rollout(**SHORT, steps=[10, 100], manualGates=[0, 10, 60], threshold=2, autoPromote=False),
    rollout(**SHORT, steps=[25], mirror=True),
    rollout("BlueGreen", **SHORT),
    rollout("BlueGreen", **SHORT, probes=PROBES, iterations=3, threshold=2),
    rollout("BlueGreen", **SHORT, mirror=True, autoPromote=False),
    rollout("Recreate", **SHORT),
]


@dataclass
class Laws:
    """Watches a rollout, turn by turn."""

    breaches: Counter[str] = field(default_factory=Counter)  # failed checks of a revision since it was last started
    promoted: list[str] = field(default_factory=list)

    def __call__(self, turn: Planned) -> None:
        """Every law, for one turn."""
        self._shares(turn)
        self._steps(turn)
        self._nobody_withdrawn_answers(turn)
        self._breaches(turn)
        self._once(turn)
        history = turn.decided.state.history
        assert len(history) <= 10
        assert [entry.time for entry in history] == sorted((entry.time for entry in history), reverse=True)
        assert turn.decided.requeue_after is None or turn.decided.requeue_after > 0

    def _shares(self, turn: Planned) -> None:
        state, split = turn.decided.state, turn.decided.split
        candidate = state.candidate
        assert (split is None) == (state.stable is None)
        if split is None:
            assert candidate is None
            return
        shares = {split.stable: 100 - split.weight} | ({split.candidate: split.weight} if split.candidate else {})
        assert sum(shares.values()) == 100, "the weights of all revisions are all of the traffic"
        assert all(0 <= share <= 100 for share in shares.values())
        assert split.candidate == (candidate.revision if candidate else None)
        assert not turn.decided.remove & {split.stable, split.candidate}, "who has a weight is not removed"
        assert shares.keys() <= set(split.revisions)
        assert shares.keys() == turn.decided.replicas.keys()

    def _steps(self, turn: Planned) -> None:
        """Up by one step or to everything, down to nothing, and never anything else."""
        old, new = turn.before.candidate, turn.decided.state.candidate
        if new is None:
            return
        same = old is not None and old.revision == new.revision and old.started_at == new.started_at
        weight = old.weight if old and same else 0
        following = next((step for step in weights_of(turn.rollout) if step > weight), weight)
        assert new.weight in {weight, following}, f"from {weight} to {new.weight}"

    def _nobody_withdrawn_answers(self, turn: Planned) -> None:
        state, split = turn.decided.state, turn.decided.split
        answering = {name for name in (split and split.stable, split and split.candidate) if name}
        assert not answering & turn.world.withdrawn
        assert turn.world.withdrawn <= turn.decided.remove
        assert state.rejected is None or state.rejected.revision not in answering

    def _breaches(self, turn: Planned) -> None:
        before, after = turn.before, turn.decided.state
        if turn.check and turn.check.verdict is Verdict.FAIL:
            self.breaches[turn.check.revision] += 1
        fresh = [entry for entry in after.history if entry not in before.history]
        for entry in reversed(fresh):
            if entry.decision is DecisionType.STARTED:
                self.breaches[entry.revision] = 0
            if entry.decision is DecisionType.PROMOTED:
                assert self.breaches[entry.revision] < turn.rollout.threshold, "a bad candidate takes over"
                self.promoted.append(entry.revision)

    def _once(self, turn: Planned) -> None:
        """The same state and world make the same decision, and nothing is left to decide."""
        decided = turn.decided
        assert plan_rollout(turn.before, turn.rollout, turn.world, turn.check) == decided
        assert plan_rollout(decided.state, turn.rollout, turn.world, turn.check) == decided
        assert plan_rollout(decided.state, turn.rollout, turn.world) == decided
        assert due_check(decided.state, turn.rollout, turn.world) is None


# --- what may happen --------------------------------------------------------------------------

Happening = Callable[[Simulation], None]


def change(**fields: Any) -> Happening:
    """Something of the service or its surroundings changes."""

    def happen(simulation: Simulation) -> None:
        for name, value in fields.items():
            setattr(simulation, name, value)

    return happen


def behave(version: str, **fields: Any) -> Happening:
    """Pods of a version behave differently."""

    def happen(simulation: Simulation) -> None:
        for name, value in fields.items():
            setattr(simulation.of(version), name, value)

    return happen


def measure(version: str, metric: RolloutMetric, value: float) -> Happening:
    """A metric of a version changes."""

    def happen(simulation: Simulation) -> None:
        simulation.of(version).values[metric] = value

    return happen


def delete(version: str) -> Happening:
    """Somebody deletes a Deployment."""

    def happen(simulation: Simulation) -> None:
        simulation.deployments.pop(version, None)

    return happen


def kill(simulation: Simulation) -> None:
    """The operator is killed in its next turn, after it wrote the status."""
    last = simulation.turns + 1
    simulation.carries_out = lambda turn: turn != last


def run(duration: int) -> Happening:
    """Time goes by."""

    def happen(simulation: Simulation) -> None:
        simulation.run(duration)

    return happen


versions = st.sampled_from(VERSIONS)
PROBLEMS = [None, None, Problem("p", "OutOfMemory", "too little memory"), Problem("p", "DigestMismatch", "no", True)]
requests = st.builds(
    "{}@{}/{}".format,
    st.sampled_from(["promote", "abort", "pause", "resume", "retry", "promot"]),
    versions,
    st.integers(0, 5),
)
happenings = st.one_of(
    st.builds(run, st.sampled_from([1, 10, 25, 60])),
    st.builds(run, st.sampled_from([1, 10, 25, 60])),
    st.builds(lambda v: change(target=v), st.sampled_from(["v2", "v3", "v2", "v1", None])),
    st.builds(lambda r: change(rollout=r), st.sampled_from(RULES)),
    st.builds(lambda r: change(request=r), requests | st.sampled_from([None, "", "promote", "@/", "abort@v2@v3"])),
    st.builds(lambda w: change(withdrawn=set(w)), st.sets(versions, max_size=2)),
    st.builds(lambda n: change(replicas=n), st.sampled_from([0, 1, 2, 3])),
    st.builds(lambda n: change(requests_per_second=n), st.sampled_from([0, 0.5, 10])),
    st.builds(lambda p: change(provider=p), st.sampled_from([TrafficProvider.ISTIO, TrafficProvider.NONE])),
    st.builds(lambda e: change(prometheus_error=e), st.sampled_from([None, "Prometheus is away"])),
    st.builds(lambda v, x: measure(v, RolloutMetric.ERROR_RATE, x), versions, st.sampled_from([0.0, 50.0])),
    st.builds(lambda v, a: behave(v, answer=a), versions, st.sampled_from(["Paris", "Lyon"])),
    st.builds(lambda v, d: behave(v, down=d), versions, st.booleans()),
    st.builds(lambda v, n: behave(v, loads=n), versions, st.sampled_from([0, 5, 20, math.inf])),
    st.builds(lambda v, n: behave(v, restarts=n), versions, st.sampled_from([0, 1, 3])),
    st.builds(lambda v, p: behave(v, problem=p), versions, st.sampled_from(PROBLEMS)),
    st.builds(delete, versions),
    st.just(kill),
)


def answer_as_person(simulation: Simulation, number: int) -> None:
    """Somebody is asked for something, and does it. Who is refused twice gives up."""
    candidate, handled = simulation.state.candidate, simulation.state.handled
    if candidate is None:
        return
    refused = handled is not None and handled.outcome is RequestOutcome.REFUSED
    if candidate.phase is Phase.WAITING and refused and number > 3:
        simulation.request = f"abort@{candidate.revision}/end{number}"
    elif candidate.paused or (simulation.rollout.manual_gates and number % 2):
        simulation.request = f"resume@{candidate.revision}/end{number}"
    elif candidate.phase is Phase.WAITING:
        simulation.request = f"promote@{candidate.revision}/end{number}"


def most_intervals(rules: Rollout) -> int:
    """Intervals after which any candidate is promoted or gone. Each of its stages takes one, and two where a person is
    asked twice, and before each its pods may have to load; besides come its bad checks."""
    stages = len(weights_of(rules)) + (rules.iterations or 1) + 1
    waiting = 2 * (len(rules.manual_gates or ()) + 2)
    loading = math.ceil(seconds(rules.progress_deadline) / seconds(rules.interval))
    return loading * (stages + 1) + 2 * stages + 2 * waiting + rules.threshold + rules.inconclusive_limit


# --- verdicts alone, against a count by hand --------------------------------------------------


@dataclass
class Count:
    """How a rollout ends by counting its verdicts, with the numbers of the spec."""

    rules: Rollout
    stages: int  # good checks that it takes

    def outcome(self, verdicts: list[Verdict]) -> tuple[str, int]:
        """(what becomes of the candidate, after how many checks)."""
        seen: Counter[Verdict] = Counter()
        for number, verdict in enumerate(verdicts, 1):
            seen[verdict] += 1
            if seen[Verdict.FAIL] == self.rules.threshold:
                return "ErrorRate", number
            if seen[Verdict.INCONCLUSIVE] == self.rules.inconclusive_limit:
                return "Inconclusive", number
            if seen[Verdict.PASS] == self.stages:
                return "promoted", number
        return "on its way", len(verdicts)


COUNTED = [
    Count(rollout(steps=[5, 20, 50], threshold=3, inconclusiveLimit=4), stages=3),
    Count(rollout(stepWeight=10, maxWeight=60, inconclusiveLimit=2), stages=6),
    Count(rollout(steps=[10, 100], mirror=True, threshold=2, inconclusiveLimit=9), stages=3),
    Count(rollout("BlueGreen", mirror=True, iterations=5, threshold=2, inconclusiveLimit=3), stages=5),
]
# A value of ErrorRate, or no Prometheus, makes any verdict.
SCRIPT = {Verdict.PASS: (0.0, None), Verdict.FAIL: (9.0, None), Verdict.INCONCLUSIVE: (0.0, "away")}


@settings(max_examples=200, deadline=None)
@given(count=st.sampled_from(COUNTED), verdicts=st.lists(st.sampled_from(Verdict), max_size=14))
def test_verdicts_are_counted(count: Count, verdicts: list[Verdict]) -> None:
    simulation = started(count.rules)
    simulation.watch = Laws()
    simulation.target = "v2"
    simulation.run(25)
    checks = 0
    for verdict in verdicts:
        if simulation.state.candidate:
            checks += 1
            simulation.of("v2").values[RolloutMetric.ERROR_RATE], simulation.prometheus_error = SCRIPT[verdict]
            simulation.run(60)
    state = simulation.state
    ended = state.rejected.reason if state.rejected else "promoted"
    found = "on its way" if state.candidate else ended
    assert (found, checks) == count.outcome(verdicts)
    assert state.stable == ("v2" if found == "promoted" else "v1")


# --- anything at all --------------------------------------------------------------------------


@settings(max_examples=600, deadline=None)
@given(rules=st.sampled_from(RULES), events=st.lists(happenings, max_size=25))
def test_whatever_happens_the_laws_hold_and_the_rollout_ends(rules: Rollout, events: list[Happening]) -> None:
    laws = Laws()
    simulation = started(rules)
    simulation.watch = laws
    simulation.target = "v2"
    for happen in events:
        happen(simulation)
        simulation.run(1)
    for version in VERSIONS:
        simulation.of(version).down = False
    simulation.withdrawn = set()
    simulation.replicas = simulation.replicas or 1
    simulation.target = simulation.target or "v2"
    for number in range(most_intervals(simulation.rollout)):
        simulation.run(seconds(simulation.rollout.interval))
        if simulation.state.candidate is None:
            break
        answer_as_person(simulation, number)
    state = simulation.run(10).state
    assert state.candidate is None, f"it does not end: {state.candidate}"
    assert state.rejected is not None or state.stable == simulation.target
    assert simulation.deployments.keys() <= {state.stable}, "what is not needed is gone"
