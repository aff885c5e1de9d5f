"""A rollout in simulated time: the planner and the analysis as they are, Deployments, pods and Prometheus as a script.

Time jumps to whatever comes next: the moment the planner asked for, a pod that becomes ready, or a happening of the
script. Nothing but a status that went through JSON is carried from turn to turn, as with an operator that is killed
after each of them.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewright_api.inferenceservice import InferenceServiceStatus
from tunewright_api.rollout import Rollout, RolloutMetric
from tunewright_api.rollout_status import Analysis, RevisionStatus
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.manifests.server import Revision
from tunewright_operator.observe.pod_problem import Problem
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.policies.analysis import Answer, Samples, checks_of, judge
from tunewright_operator.policies.rollout import (
    RolloutPlan,
    RolloutState,
    Window,
    World,
    describe,
    due_check,
    plan_rollout,
    read_state,
)

T0 = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
GOOD: Mapping[RolloutMetric, float] = {
    RolloutMetric.ERROR_RATE: 0.1,
    RolloutMetric.COMPLETION_RATE: 99.0,
    RolloutMetric.TTFT_P50: 200.0,
    RolloutMetric.TTFT_P95: 500.0,
    RolloutMetric.TPOT_P95: 20.0,
}


@dataclass
class Behaviour:
    """How the pods of a revision behave. It may be changed while they run."""

    loads: float = 20  # seconds until a pod is ready; math.inf: never
    values: dict[RolloutMetric, float] = field(default_factory=lambda: dict(GOOD))
    answer: str = "Paris"
    problem: Problem | None = None
    down: bool = False  # pods that were ready are so no longer
    restarts: int = 0


@dataclass
class Pods:
    """A Deployment: when each of its pods was started."""

    version: str
    started: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Planned:
    """One turn, for those who watch."""

    before: RolloutState
    rollout: Rollout
    world: World
    check: Analysis | None
    decided: RolloutPlan


@dataclass
class Simulation:
    """One service. `revisions` are named like their versions: v1 is guide-v1."""

    rollout: Rollout
    provider: TrafficProvider = TrafficProvider.ISTIO
    replicas: int = 1
    target: str | None = "v1"
    requests_per_second: float = 10
    prometheus_error: str | None = None
    request: str | None = None
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    deployments: dict[str, Pods] = field(default_factory=dict)
    stored: str = "{}"
    clock: float = 0
    turns: int = 0
    shares: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    carries_out: Callable[[int], bool] = lambda turn: True  # False: the operator is killed after this turn's status
    watch: Callable[["Planned"], None] = lambda planned: None

    def of(self, revision: str) -> Behaviour:
        """The behaviour of a revision."""
        return self.behaviours.setdefault(revision, Behaviour())

    @property
    def now(self) -> datetime:
        """Simulated time."""
        return T0 + timedelta(seconds=self.clock)

    @property
    def status(self) -> InferenceServiceStatus:
        """The status as it is stored."""
        return InferenceServiceStatus.model_validate(json.loads(self.stored))

    @property
    def state(self) -> RolloutState:
        """What the planner remembers."""
        return read_state(self.status)

    @property
    def weights(self) -> list[str]:
        """Who answered from when on: `20 v2=10` is ten percent for v2 from second 20 on, the rest is v1's."""
        return [f"{second:g} {' '.join(f'{name}={share}' for name, share in s.items())}" for second, s in self.shares]

    # --- the world --------------------------------------------------------------------------

    def world(self) -> World:
        """What the operator would see."""
        target = self.target if self.target not in self.withdrawn else None
        return World(
            now=self.now,
            target=Revision(f"guide-{target}", target) if target else None,
            revisions={name: self._observe(name, pods) for name, pods in self.deployments.items()},
            withdrawn=frozenset(self.withdrawn & self.deployments.keys()),
            withdrawn_reasons={name: f"guide-{name} lost its approval" for name in self.withdrawn},
            replicas=self.replicas,
            provider=self.provider,
            request=self.request,
        )

    def _observe(self, name: str, pods: Pods) -> RevisionState:
        behaviour = self.of(name)
        ready = sum(started + behaviour.loads <= self.clock for started in pods.started)
        ready = 0 if behaviour.down or behaviour.problem else ready
        return RevisionState(
            name=name,
            version=pods.version,
            replicas=len(pods.started),
            ready=ready,
            settled=True,
            stuck=False,
            problem=behaviour.problem,
            failure=behaviour.problem,
            restarts=behaviour.restarts,
        )

    def measure(self, window: Window, world: World) -> Analysis:
        """What Prometheus and the probes say about the window."""
        candidate = self.state.candidate
        assert candidate is not None
        share = candidate.weight or candidate.mirror_weight
        everything = self.requests_per_second * window.seconds
        requests = {window.revision: everything * share / 100}
        if window.stable:
            requests[window.stable] = everything * (100 - candidate.weight) / 100
        values = {
            (metric, revision): value
            for revision, count in requests.items()
            if count
            for metric, value in self.of(revision).values.items()
        }
        samples = Samples({}, {}, self.prometheus_error) if self.prometheus_error else Samples(values, requests)
        probes, answers = self.rollout.probes, None
        if probes:
            answers = [Answer(probe, self.of(window.revision).answer) for probe in probes.prompts]
        samples = samples if checks_of(self.rollout) else Samples({}, {})
        return judge(window, self.rollout, samples, answers, world.revisions[window.revision], self.now)

    # --- turns ------------------------------------------------------------------------------

    def turn(self) -> RolloutPlan:
        """One turn of the operator."""
        self.turns += 1
        world, state = self.world(), self.state
        window = due_check(state, self.rollout, world)
        check = self.measure(window, world) if window else None
        decided = plan_rollout(state, self.rollout, world, check)
        self.watch(Planned(state, self.rollout, world, check, decided))
        self._note(state, decided)
        self._store(decided, world)
        if self.carries_out(self.turns):
            self._carry_out(decided)
        return decided

    def _note(self, before: RolloutState, decided: RolloutPlan) -> None:
        after = decided.state
        old = {(entry.time, entry.decision, entry.reason, entry.count) for entry in before.history}
        fresh = [e for e in after.history if (e.time, e.decision, e.reason, e.count) not in old]
        self.decisions += [f"{entry.decision} {entry.reason}" for entry in reversed(fresh)]
        sentence = describe(after, self.rollout)
        if not self.sentences or self.sentences[-1] != sentence:
            self.sentences.append(sentence)

    def _store(self, decided: RolloutPlan, world: World) -> None:
        state = decided.state
        stable = None
        if state.stable:
            seen = world.revisions.get(state.stable)
            stable = RevisionStatus(
                version=f"guide-{state.stable}",
                revision=state.stable,
                ready_replicas=seen.ready if seen else 0,
                replicas=seen.replicas if seen else 0,
            )
        status = InferenceServiceStatus(
            stable=stable,
            candidate=state.candidate,
            analysis=state.analysis,
            history=list(state.history),
            rejected=state.rejected,
            last_handled_request=state.handled,
        )
        self.stored = json.dumps(status.to_dict())

    def _carry_out(self, decided: RolloutPlan) -> None:
        split = decided.split
        if split is None:
            shares = {}
        elif split.candidate and split.weight:
            shares = {split.candidate: split.weight}
        else:
            shares = {split.stable: 100}
        if not self.shares or self.shares[-1][1] != shares:
            self.shares.append((self.clock, shares))
        if self.target and self.target in decided.replicas:
            self.deployments.setdefault(self.target, Pods(f"guide-{self.target}"))
        for name, count in decided.replicas.items():
            pods = self.deployments.get(name)
            if pods:
                pods.started = (pods.started + [self.clock] * count)[:count]
        for name in decided.remove:
            del self.deployments[name]

    def settle(self) -> RolloutPlan:
        """Turns at this moment, until one changes nothing."""
        for _ in range(10):
            before = self.stored, copy.deepcopy(self.deployments)
            decided = self.turn()
            if before == (self.stored, self.deployments):
                return decided
        raise AssertionError(f"the planner does not come to rest: {self.decisions[-10:]}")

    def run(self, seconds: float = 0) -> "Simulation":
        """All turns that come up within these seconds."""
        end = self.clock + seconds
        while True:
            decided = self.settle()
            assert decided.requeue_after is None or decided.requeue_after > 0, "nobody may wait for what is due"
            following = min(self._moments(decided), default=end)
            if following > end or self.clock == end:
                self.clock = end
                return self
            self.clock = following

    def _moments(self, decided: RolloutPlan) -> list[float]:
        """When something comes up next."""
        ready = [
            moment
            for name, pods in self.deployments.items()
            for start in pods.started
            if self.clock < (moment := start + self.of(name).loads) < math.inf
        ]
        return ready if decided.requeue_after is None else [*ready, self.clock + decided.requeue_after]


def rollout(strategy: str = "Canary", **fields: Any) -> Rollout:
    """spec.rollout, with fields in camelCase."""
    return Rollout.model_validate({"strategy": strategy} | fields)


def started(rules: Rollout, **fields: Any) -> Simulation:
    """A service that has served v1 for a while."""
    simulation = Simulation(rules, **fields)
    simulation.clock = -100
    simulation.run(100)
    assert simulation.state.stable == "v1"
    simulation.shares.clear()
    simulation.decisions.clear()
    simulation.sentences.clear()
    return simulation
