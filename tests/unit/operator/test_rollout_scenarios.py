"""Whole rollouts in simulated time: who answers from which second on, what was decided, and what a person reads."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.simulated_rollout import Simulation, rollout, started
from tunewright_api.rollout import RolloutMetric
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.observe.pod_problem import Problem

Happening = Callable[[Simulation], None]

PROBES = {"prompts": [{"name": "capital", "prompt": "Capital of France?", "exact": "Paris"}]}
THREE_PROBES = {
    "prompts": [
        {"name": "capital", "prompt": "Capital of France?", "exact": "Paris"},
        {"name": "city", "prompt": "A city?", "regex": "^[A-Z][a-z]+$"},
        {"name": "sum", "prompt": "1 + 1?", "exact": "2"},
    ]
}
STEPS: dict[str, Any] = {"steps": [20, 50]}
RANGES = [{"name": "ErrorRate", "thresholdRange": {"max": 1}}, {"name": "TTFTP95", "thresholdRange": {"max": 600}}]
DIGEST = Problem("guide-v2-x", "DigestMismatch", "model/config.json was changed after export", final=True)

MEMORY = Problem("guide-v1-x", "OutOfMemory", "the node ran out of memory")
NO_ROOM = Problem("guide-v2-x", "Unschedulable", "no node takes the pod: 1 Insufficient nvidia.com/gpu")


def asks_for(version: str | None) -> Happening:
    """The spec asks for another version; None: for one that cannot be served."""

    def happen(simulation: Simulation) -> None:
        simulation.target = version

    return happen


def person(request: str) -> Happening:
    """A person writes the annotation."""

    def happen(simulation: Simulation) -> None:
        simulation.request = request

    return happen


def becomes(version: str, **changes: Any) -> Happening:
    """The pods of a revision behave differently from now on."""

    def happen(simulation: Simulation) -> None:
        for name, value in changes.items():
            setattr(simulation.of(version), name, value)

    return happen


def measures(version: str, metric: RolloutMetric, value: float) -> Happening:
    """A metric of a revision has this value from now on."""

    def happen(simulation: Simulation) -> None:
        simulation.of(version).values[metric] = value

    return happen


def now(**fields: Any) -> Happening:
    """Something of the service or its surroundings changes."""

    def happen(simulation: Simulation) -> None:
        for name, value in fields.items():
            setattr(simulation, name, value)

    return happen


def revoked(*versions: str) -> Happening:
    """The approval of these versions is taken back; none: all have it again."""

    def happen(simulation: Simulation) -> None:
        simulation.withdrawn = set(versions)

    return happen


def both(*happenings: Happening) -> Happening:
    """At the same moment."""

    def happen(simulation: Simulation) -> None:
        for one in happenings:
            one(simulation)

    return happen


def loses_a_pod(version: str, until: float = 0) -> Happening:
    """One pod is replaced, and the new one has to load. It is put on a node only after some seconds."""

    def happen(simulation: Simulation) -> None:
        simulation.deployments[version].started[0] = simulation.clock + until

    return happen


def loses_its_deployment(version: str) -> Happening:
    """Somebody deletes it."""

    def happen(simulation: Simulation) -> None:
        del simulation.deployments[version]

    return happen


@dataclass
class Case:
    """v1 serves, and at second 0 the spec asks for v2, whose pods load for 20 seconds."""

    rules: dict[str, Any]
    weights: list[str]
    decisions: list[str]
    then: dict[int, Happening] = field(default_factory=dict)
    says: str = ""  # of the newest decision
    last: int = 600
    service: dict[str, Any] = field(default_factory=dict)
    end: tuple[str | None, str | None] = ("v2", None)  # stable and rejected revision


CASES = {
    # --- Canary
    "a good canary moves step by step and takes all": Case(
        {"stepWeight": 20, "maxWeight": 50},
        ["0 v1=100", "20 v2=20", "80 v2=40", "140 v2=50", "200 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Advanced Passed", "Promoted Passed"],
        says="ErrorRate, CompletionRate, TTFTP95, TPOTP95 within limits, from 300 requests in 60 s; "
        "guide-v2 gets all of the traffic",
    ),
    "a canary without numbers goes by tens to fifty": Case(
        {"interval": "10s", "minRequests": 5},
        ["0 v1=100", *(f"{20 + 10 * i} v2={10 + 10 * i}" for i in range(5)), "70 v2=100"],
        ["Started NewRevision", "Advanced Ready", *["Advanced Passed"] * 4, "Promoted Passed"],
    ),
    "a canary may be judged at all of the traffic, by its own limits": Case(
        {"steps": [50, 100]},
        ["0 v1=100", "20 v2=50", "80 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
    ),
    "a slow first token is rolled back at the first check": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack TTFTP95"],
        {0: measures("v2", RolloutMetric.TTFT_P95, 912)},
        says="TTFTP95 is 912 ms, limit 750 ms (500 ms of guide-v1 + 50 %)",
        end=("v1", "v2"),
    ),
    "slow tokens are rolled back at the second step, where they begin": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v2=50", "140 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "RolledBack TPOTP95"],
        {90: measures("v2", RolloutMetric.TPOT_P95, 31)},
        says="TPOTP95 is 31 ms, limit 30 ms (20 ms of guide-v1 + 50 %)",
        end=("v1", "v2"),
    ),
    "errors are rolled back": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack ErrorRate"],
        {0: measures("v2", RolloutMetric.ERROR_RATE, 3.25)},
        says="ErrorRate is 3.25 %, limit 1 %",
        end=("v1", "v2"),
    ),
    "answers that never end are rolled back": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack CompletionRate"],
        {0: measures("v2", RolloutMetric.COMPLETION_RATE, 90)},
        says="CompletionRate is 90 %, at least 94.05 % is asked for (99 % of guide-v1 - 5 %)",
        end=("v1", "v2"),
    ),
    "both revisions are slow together, which is not the candidate's fault": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v2=50", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {
            0: both(
                measures("v1", RolloutMetric.TTFT_P95, 4000),
                measures("v2", RolloutMetric.TTFT_P95, 4100),
            )
        },
    ),
    "a wrong answer is rolled back": Case(
        STEPS | {"probes": PROBES},
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack WrongAnswers"],
        {0: becomes("v2", answer="Lyon")},
        says="0 of 1 probes answered right, minPassPercent is 100: probe capital answered 'Lyon', expected 'Paris'",
        end=("v1", "v2"),
    ),
    "enough right answers are enough": Case(
        STEPS | {"probes": THREE_PROBES | {"minPassPercent": 66}},
        ["0 v1=100", "20 v2=20", "80 v2=50", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        says="ErrorRate, CompletionRate, TTFTP95, TPOTP95 within limits, from 300 requests in 60 s; "
        "2 of 3 probes answered right; guide-v2 gets all of the traffic",
    ),
    "two bad checks of three allowed, then it recovers": Case(
        STEPS | {"threshold": 3},
        ["0 v1=100", "20 v2=20", "200 v2=50", "260 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held ErrorRate", "Held ErrorRate"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {0: measures("v2", RolloutMetric.ERROR_RATE, 5), 150: measures("v2", RolloutMetric.ERROR_RATE, 0)},
    ),
    "it flaps until the third bad check": Case(
        {"steps": [20, 30, 40, 50], "threshold": 3},
        ["0 v1=100", "20 v2=20", "140 v2=30", "260 v2=40", "320 v1=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held ErrorRate", "Advanced Passed", "Held ErrorRate"),
            *("Advanced Passed", "RolledBack ErrorRate"),
        ],
        {
            second: measures("v2", RolloutMetric.ERROR_RATE, value)
            for second, value in ((0, 5), (90, 0), (150, 5), (210, 0), (270, 5))
        },
        says="ErrorRate is 5 %, limit 1 % (3 of 3 failed checks)",
        end=("v1", "v2"),
    ),
    # --- not enough is known
    "no traffic is never a pass": Case(
        STEPS | {"inconclusiveLimit": 3},
        ["0 v1=100", "20 v2=20", "200 v1=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held TooFewRequests", "Held TooFewRequests"),
            "RolledBack Inconclusive",
        ],
        service={"requests_per_second": 0},
        says="3 of 3 inconclusive checks; the newest: guide-v2 got 0 requests in 60 s, and rollout.minRequests is 20",
        end=("v1", "v2"),
    ),
    "too little traffic at the first step, more of it later": Case(
        STEPS | {"minRequests": 100},
        ["0 v1=100", "20 v2=20", "200 v2=50", "260 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held TooFewRequests", "Held TooFewRequests"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {150: now(requests_per_second=10)},
        service={"requests_per_second": 8},
    ),
    "Prometheus is away for two checks": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "200 v2=50", "260 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held PrometheusUnavailable", "Held PrometheusUnavailable"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {30: now(prometheus_error="Prometheus does not answer"), 150: now(prometheus_error=None)},
    ),
    "Prometheus never comes back": Case(
        STEPS | {"inconclusiveLimit": 2},
        ["0 v1=100", "20 v2=20", "140 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Held PrometheusUnavailable", "RolledBack Inconclusive"],
        {30: now(prometheus_error="Prometheus does not answer")},
        says="2 of 2 inconclusive checks; the newest: Prometheus does not answer",
        end=("v1", "v2"),
    ),
    # --- pods
    "pods that never get ready are given up after progressDeadline": Case(
        STEPS | {"progressDeadline": "5m"},
        ["0 v1=100"],
        ["Started NewRevision", "RolledBack ProgressDeadlineExceeded"],
        {0: becomes("v2", loads=math.inf)},
        says="0 of 1 pods of guide-v2 are ready after progressDeadline (5m)",
        end=("v1", "v2"),
    ),
    "a wrong digest is given up at once": Case(
        STEPS,
        ["0 v1=100"],
        ["Started NewRevision", "RolledBack DigestMismatch"],
        {10: becomes("v2", problem=DIGEST)},
        says="pod guide-v2-x: model/config.json was changed after export",
        end=("v1", "v2"),
    ),
    "a crash that may pass is waited for": Case(
        STEPS,
        ["0 v1=100", "60 v2=20", "120 v2=50", "180 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {
            10: becomes("v2", problem=Problem("guide-v2-x", "OutOfMemory", "the node ran out of memory"), restarts=1),
            60: becomes("v2", problem=None),
        },
    ),
    "three crashes are a loop, even if it starts again each time": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "40 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack CrashLoop"],
        {40: becomes("v2", restarts=3)},
        says="a pod of guide-v2 crashed 3 times",
        end=("v1", "v2"),
    ),
    "the candidate's pods die under traffic": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "45 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack CandidateDown"],
        {45: becomes("v2", down=True)},
        says="no pod of guide-v2 is ready, and it got 20 % of the traffic",
        end=("v1", "v2"),
    ),
    "one of two pods loads again: the window begins when it is ready": Case(
        STEPS | {"inconclusiveLimit": 1},
        ["0 v1=100", "20 v2=20", "150 v2=50", "210 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {70: loses_a_pod("v2")},
        service={"replicas": 2},
    ),
    "one of two pods loads again, and the other makes errors: that counts": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack ErrorRate"],
        {70: both(loses_a_pod("v2"), measures("v2", RolloutMetric.ERROR_RATE, 7))},
        service={"replicas": 2},
        end=("v1", "v2"),
    ),
    "one of two pods never comes back: its checks count after progressDeadline": Case(
        STEPS | {"inconclusiveLimit": 2, "progressDeadline": "3m"},
        ["0 v1=100", "20 v2=20", "260 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Held PodsNotReady", "RolledBack Inconclusive"],
        {70: loses_a_pod("v2", math.inf)},
        service={"replicas": 2},
        says="2 of 2 inconclusive checks; the newest: 1 of 2 pods of guide-v2 are ready",
        end=("v1", "v2"),
    ),
    "a healthy stable pod is moved while the candidate loads: the candidate is judged all the same": Case(
        STEPS | {"metrics": RANGES},
        ["0 v1=100", "20 v2=20", "80 v2=50", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {5: becomes("v1", down=True), 70: becomes("v1", down=False)},
    ),
    "the stable pods crash while the candidate loads, and a gate is closed": Case(
        STEPS | {"manualGates": [20], "metrics": RANGES},
        ["0 v1=100", "20 v2=20", "300 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Resumed Requested", "Promoted StableDown"],
        {5: becomes("v1", problem=MEMORY), 300: person("resume@v2")},
    ),
    "the stable pods crash while the candidate loads, and autoPromote is off": Case(
        {"strategy": "BlueGreen", "autoPromote": False},
        ["0 v1=100", "300 v2=100"],
        ["Started NewRevision", "Waiting AutoPromoteOff", "Promoted Requested"],
        {5: becomes("v1", problem=MEMORY), 300: person("promote@v2")},
    ),
    "crashed stable pods hold the only GPU: they make room for the fix": Case(
        STEPS | {"progressDeadline": "10m"},
        ["0 v1=100", "100 v2=100"],
        ["Started NewRevision", "Held StableStopped", "Promoted StableDown"],
        {
            0: becomes("v2", problem=NO_ROOM),
            50: becomes("v1", problem=MEMORY),
            100: both(becomes("v1", problem=None, loads=math.inf), becomes("v2", problem=None)),
        },
    ),
    "healthy stable pods hold the only GPU: they keep it": Case(
        STEPS | {"progressDeadline": "5m"},
        ["0 v1=100"],
        ["Started NewRevision", "RolledBack ProgressDeadlineExceeded"],
        {0: becomes("v2", problem=NO_ROOM), 50: becomes("v1", down=True), 70: becomes("v1", down=False)},
        end=("v1", "v2"),
    ),
    "the stable pods crashed while the candidate loaded: nothing to lose": Case(
        STEPS,
        ["0 v1=100", "20 v2=100"],
        ["Started NewRevision", "Promoted StableDown"],
        {5: becomes("v1", problem=MEMORY)},
        says="guide-v1 has no ready pod; guide-v2 gets all of the traffic",
    ),
    "the stable pods die later: the candidate is judged by its own limits": Case(
        STEPS | {"metrics": RANGES},
        ["0 v1=100", "20 v2=20", "80 v2=50", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {30: becomes("v1", down=True)},
    ),
    # --- BlueGreen
    "blue-green with nothing to look at switches once all pods are ready": Case(
        {"strategy": "BlueGreen"},
        ["0 v1=100", "20 v2=100"],
        ["Started NewRevision", "Promoted Ready"],
        says="all pods of guide-v2 are ready; guide-v2 gets all of the traffic",
        service={"replicas": 3},
    ),
    "blue-green asks its probes three times before it switches": Case(
        {"strategy": "BlueGreen", "probes": PROBES, "iterations": 3},
        ["0 v1=100", "200 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Advanced Passed", "Promoted Passed"],
        says="1 of 1 probes answered right; guide-v2 gets all of the traffic",
    ),
    "blue-green that answers wrongly never gets a request": Case(
        {"strategy": "BlueGreen", "probes": PROBES},
        ["0 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack WrongAnswers"],
        {0: becomes("v2", answer="Lyon")},
        end=("v1", "v2"),
    ),
    "blue-green looks at copies of requests": Case(
        {"strategy": "BlueGreen", "mirror": True, "mirrorWeight": 30, "iterations": 2},
        ["0 v1=100", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        says="ErrorRate, CompletionRate, TTFTP95, TPOTP95 within limits, from 180 requests in 60 s; "
        "guide-v2 gets all of the traffic",
    ),
    "blue-green with metrics and without copies has nothing to measure, and says so": Case(
        {"strategy": "BlueGreen", "metrics": RANGES, "inconclusiveLimit": 2},
        ["0 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Held TooFewRequests", "RolledBack Inconclusive"],
        says="2 of 2 inconclusive checks; the newest: guide-v2 gets no requests to measure before the switch: "
        "set rollout.mirror to true",
        end=("v1", "v2"),
    ),
    "blue-green waits for a person to switch": Case(
        {"strategy": "BlueGreen", "autoPromote": False},
        ["0 v1=100", "300 v2=100"],
        ["Started NewRevision", "Waiting AutoPromoteOff", "Promoted Requested"],
        {300: person("promote@v2")},
        says="a person promoted guide-v2, which gets all of the traffic",
    ),
    # --- mirror
    "a canary gets copies first": Case(
        STEPS | {"mirror": True},
        ["0 v1=100", "80 v2=20", "140 v2=50", "200 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Advanced Passed", "Promoted Passed"],
    ),
    "the share of copies changes while blue-green waits, and a check of it fails": Case(
        {"strategy": "BlueGreen", "mirror": True, "mirrorWeight": 30, "autoPromote": False},
        ["0 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Waiting AutoPromoteOff", "RolledBack ErrorRate"],
        {
            100: now(rollout=rollout("BlueGreen", mirror=True, mirrorWeight=60, autoPromote=False)),
            170: measures("v2", RolloutMetric.ERROR_RATE, 7),
        },
        end=("v1", "v2"),
    ),
    "a canary that is bad with copies never answers a user": Case(
        STEPS | {"mirror": True},
        ["0 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack TTFTP95"],
        {0: measures("v2", RolloutMetric.TTFT_P95, 2000)},
        end=("v1", "v2"),
    ),
    # --- people
    "a manual gate holds the weight until somebody resumes": Case(
        STEPS | {"manualGates": [20]},
        ["0 v1=100", "20 v2=20", "300 v2=50", "360 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Resumed Requested"),
            *("Advanced Released", "Promoted Passed"),
        ],
        {300: person("resume@v2")},
    ),
    "a gate at zero is before the first request": Case(
        {"steps": [20], "manualGates": [0], "mirror": True},
        ["0 v1=100", "360 v2=20", "420 v2=100"],
        [
            *("Started NewRevision", "Waiting ManualGate", "Resumed Requested", "Advanced Released"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {300: person("resume@v2")},
    ),
    "a gate between two weights holds before the second": Case(
        STEPS | {"manualGates": [30]},
        ["0 v1=100", "20 v2=20", "200 v2=50", "260 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Resumed Requested"),
            *("Advanced Released", "Promoted Passed"),
        ],
        {200: person("resume@v2")},
    ),
    "checks go on at a gate: a bad one undoes the rollout": Case(
        STEPS | {"manualGates": [20]},
        ["0 v1=100", "20 v2=20", "260 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Waiting ManualGate", "RolledBack ErrorRate"],
        {210: measures("v2", RolloutMetric.ERROR_RATE, 50)},
        end=("v1", "v2"),
    ),
    "a quiet night at a gate is no reason to undo": Case(
        STEPS | {"manualGates": [20], "inconclusiveLimit": 2},
        ["0 v1=100", "20 v2=20", "3000 v2=50", "3060 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Resumed Requested"),
            *("Advanced Released", "Promoted Passed"),
        ],
        {
            100: now(requests_per_second=0),
            2950: now(requests_per_second=10),
            3000: person("resume@v2"),
        },
        last=4000,
    ),
    "a gate that opens after a bad check waits for a good one": Case(
        STEPS | {"manualGates": [20], "threshold": 5},
        ["0 v1=100", "20 v2=20", "200 v2=50", "260 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Held ErrorRate", "Resumed Requested"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {
            100: measures("v2", RolloutMetric.ERROR_RATE, 50),
            150: both(person("resume@v2"), measures("v2", RolloutMetric.ERROR_RATE, 0)),
        },
    ),
    "without autoPromote the last step waits for a person": Case(
        {"steps": [20], "autoPromote": False},
        ["0 v1=100", "20 v2=20", "300 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Waiting AutoPromoteOff", "Promoted Requested"],
        {250: person("resume@v2"), 300: person("promote@v2")},
    ),
    "the spec takes the gate away while the rollout waits": Case(
        STEPS | {"manualGates": [20]},
        ["0 v1=100", "20 v2=20", "300 v2=50", "360 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Waiting ManualGate", "Advanced Released", "Promoted Passed"],
        {300: now(rollout=rollout(**STEPS))},
    ),
    "a pause keeps the weight": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "320 v2=50", "380 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Paused Requested", "Resumed Requested"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {30: person("pause@v2"), 300: person("resume@v2")},
    ),
    "a paused candidate that turns bad is undone": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "200 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Paused Requested", "RolledBack ErrorRate"],
        {30: person("pause@v2"), 150: measures("v2", RolloutMetric.ERROR_RATE, 7)},
        end=("v1", "v2"),
    ),
    "a person aborts, and later tries again": Case(
        {"steps": [20]},
        ["0 v1=100", "20 v2=20", "30 v1=100", "120 v2=20", "180 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Aborted Aborted", "Retried Requested", "Started NewRevision"),
            *("Advanced Ready", "Promoted Passed"),
        ],
        {30: person("abort@v2"), 100: person("retry@v2")},
    ),
    "a person promotes through every gate": Case(
        STEPS | {"manualGates": [20], "autoPromote": False},
        ["0 v1=100", "20 v2=20", "30 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Promoted Requested"],
        {30: person("promote@v2")},
    ),
    "nobody may promote what has just failed": Case(
        {"steps": [20], "threshold": 9},
        ["0 v1=100", "20 v2=20", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Held ErrorRate", "Promoted Passed"],
        {
            0: measures("v2", RolloutMetric.ERROR_RATE, 7),
            90: both(person("promote@v2"), measures("v2", RolloutMetric.ERROR_RATE, 0)),
        },
    ),
    # --- the spec changes
    "a newer spec replaces the candidate": Case(
        {"steps": [20]},
        ["0 v1=100", "20 v2=20", "50 v1=100", "70 v3=20", "130 v3=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Replaced SpecChanged", "Started NewRevision"),
            *("Advanced Ready", "Promoted Passed"),
        ],
        {50: asks_for("v3")},
        end=("v3", None),
    ),
    "an alias moves twice in a moment": Case(
        {"steps": [20]},
        ["0 v1=100", "21 v3=20", "81 v3=100"],
        ["Started NewRevision", "Replaced SpecChanged", "Started NewRevision", "Advanced Ready", "Promoted Passed"],
        {1: asks_for("v3")},
        end=("v3", None),
    ),
    "the spec goes back to what serves": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "50 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Replaced SpecReverted"],
        {50: asks_for("v1")},
        says="the spec asks for guide-v1 again; guide-v2 is taken back",
        end=("v1", None),
    ),
    "what was rolled back is not tried again by itself": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "80 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack ErrorRate"],
        {0: measures("v2", RolloutMetric.ERROR_RATE, 7), 200: measures("v2", RolloutMetric.ERROR_RATE, 0)},
        last=100_000,
        end=("v1", "v2"),
    ),
    "what was rolled back is tried again after the spec asked for another": Case(
        {"steps": [20]},
        ["0 v1=100", "20 v2=20", "80 v1=100", "220 v2=20", "280 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "RolledBack ErrorRate", "Started NewRevision"),
            *("Advanced Ready", "Promoted Passed"),
        ],
        {
            0: measures("v2", RolloutMetric.ERROR_RATE, 7),
            150: both(asks_for("v1"), measures("v2", RolloutMetric.ERROR_RATE, 0)),
            200: asks_for("v2"),
        },
    ),
    "the spec asks for a version that cannot be served: the candidate stays where it is": Case(
        {"steps": [20]},
        ["0 v1=100", "20 v2=20", "320 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Promoted Passed"],
        {30: asks_for(None), 300: asks_for("v2")},
    ),
    "a threshold that is lowered below the failures so far undoes the rollout": Case(
        STEPS | {"threshold": 5},
        ["0 v1=100", "20 v2=20", "100 v1=100"],
        ["Started NewRevision", "Advanced Ready", "Held ErrorRate", "RolledBack ErrorRate"],
        {
            0: measures("v2", RolloutMetric.ERROR_RATE, 7),
            100: now(rollout=rollout(**STEPS)),
        },
        end=("v1", "v2"),
    ),
    "new steps count from the weight that is reached": Case(
        {"steps": [20, 40, 60]},
        ["0 v1=100", "20 v2=20", "80 v2=30", "140 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {50: now(rollout=rollout(steps=[5, 30]))},
    ),
    "the strategy changes on the way": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "50 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Promoted Ready"],
        {50: now(rollout=rollout("BlueGreen"))},
    ),
    # --- approvals
    "the candidate's approval is taken back": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "47 v1=100"],
        ["Started NewRevision", "Advanced Ready", "RolledBack ApprovalRevoked"],
        {47: revoked("v2")},
        says="guide-v2 lost its approval",
        end=("v1", "v2"),
    ),
    "the candidate is approved again: a new decision, so it is tried again": Case(
        {"steps": [20]},
        ["0 v1=100", "20 v2=20", "47 v1=100", "320 v2=20", "380 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "RolledBack ApprovalRevoked", "Started NewRevision"),
            *("Advanced Ready", "Promoted Passed"),
        ],
        {47: revoked("v2"), 300: revoked()},
    ),
    "the stable approval is taken back: the approved candidate takes over": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "30 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Promoted StableWithdrawn"],
        {30: revoked("v1")},
        says="guide-v1 lost its approval; guide-v2 answers as soon as one of its pods is ready",
    ),
    "both approvals are taken back: nothing is served": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "30 "],
        ["Started NewRevision", "Advanced Ready", "RolledBack ApprovalRevoked"],
        {30: revoked("v1", "v2")},
        end=(None, "v2"),
    ),
    "the stable approval is taken back while the target is a rejected one: nothing is served": Case(
        {"strategy": "BlueGreen", "probes": PROBES},
        ["0 v1=100", "200 "],
        ["Started NewRevision", "Advanced Ready", "RolledBack WrongAnswers"],
        {0: becomes("v2", answer="Lyon"), 200: revoked("v1")},
        end=(None, "v2"),
    ),
    "the new stable approval is taken back while the old pods still live: they answer again": Case(
        {"strategy": "BlueGreen"},
        ["0 v1=100", "20 v2=100", "22 v1=100"],
        ["Started NewRevision", "Promoted Ready", "Promoted FellBack"],
        {22: revoked("v2")},
        says="guide-v2 lost its approval; guide-v1, which still lives, gets all of the traffic",
        end=("v1", None),
    ),
    "the stable approval is taken back after a rollback: what was undone does not answer, though it lives": Case(
        {"strategy": "BlueGreen", "probes": PROBES},
        ["0 v1=100", "82 "],
        ["Started NewRevision", "Advanced Ready", "RolledBack WrongAnswers"],
        {0: becomes("v2", answer="Lyon"), 82: both(revoked("v1"), asks_for(None))},
        end=(None, "v2"),
    ),
    # --- Recreate, None, scale
    "recreate stops the old pods first": Case(
        {"strategy": "Recreate"},
        ["0 v1=100", "20 v2=100"],
        ["Started NewRevision", "Promoted Ready"],
    ),
    "recreate goes on while nobody knows what the spec asks for": Case(
        {"strategy": "Recreate"},
        ["0 v1=100", "20 v2=100"],
        ["Started NewRevision", "Promoted Ready"],
        {10: asks_for(None)},
    ),
    "recreate undoes a withdrawn candidate while nobody knows what the spec asks for": Case(
        {"strategy": "Recreate"},
        ["0 v1=100"],
        ["Started NewRevision", "RolledBack ApprovalRevoked"],
        {10: both(asks_for(None), revoked("v2"))},
        end=("v1", "v2"),
    ),
    "recreate brings the old pods back when the new ones fail": Case(
        {"strategy": "Recreate"},
        ["0 v1=100"],
        ["Started NewRevision", "RolledBack DigestMismatch"],
        {10: becomes("v2", problem=DIGEST)},
        end=("v1", "v2"),
    ),
    "without a provider the weight is a share of pods, which have to load": Case(
        {"steps": [20, 50]},
        ["0 v1=100", "20 v2=20", "150 v2=50", "230 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Held ScaledUp", "Advanced Passed", "Promoted Passed"],
        {70: now(replicas=10)},
        service={"provider": TrafficProvider.NONE, "replicas": 4},
    ),
    "pods of a step that load for long cost no check": Case(
        {"steps": [20, 50], "inconclusiveLimit": 1},
        ["0 v1=100", "200 v2=20", "260 v2=50", "520 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Advanced Passed", "Promoted Passed"],
        {0: becomes("v2", loads=200)},
        service={"provider": TrafficProvider.NONE, "replicas": 4},
    ),
    "scaled to zero and back: the candidate keeps its place, and no check counts": Case(
        STEPS | {"inconclusiveLimit": 1, "progressDeadline": "2m"},
        ["0 v1=100", "20 v2=20", "300 v1=100", "320 v2=20", "380 v2=50", "440 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held ScaledToZero", "Held ScaledUp"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {30: now(replicas=0), 300: now(replicas=1)},
    ),
    "scaled to zero and back: stable pods that load faster do not make the candidate look down": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "300 v1=100", "320 v2=20", "380 v2=50", "440 v2=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held ScaledToZero", "Held ScaledUp"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {30: now(replicas=0), 299: becomes("v1", loads=1), 300: now(replicas=1)},
    ),
    "scaled to zero and back: a bad candidate is found out": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "300 v1=100", "320 v2=20", "380 v1=100"],
        [
            *("Started NewRevision", "Advanced Ready", "Held ScaledToZero", "Held ScaledUp"),
            "RolledBack ErrorRate",
        ],
        {30: both(now(replicas=0), measures("v2", RolloutMetric.ERROR_RATE, 7)), 300: now(replicas=1)},
        end=("v1", "v2"),
    ),
    "scaled to zero before the candidate has loaded, for longer than progressDeadline": Case(
        STEPS | {"progressDeadline": "2m"},
        ["0 v1=100", "320 v2=20", "380 v2=50", "440 v2=100"],
        [
            *("Started NewRevision", "Held ScaledToZero", "Held ScaledUp", "Advanced Ready"),
            *("Advanced Passed", "Promoted Passed"),
        ],
        {5: now(replicas=0), 300: now(replicas=1)},
    ),
    "scaled to zero in a recreation": Case(
        {"strategy": "Recreate", "progressDeadline": "2m"},
        ["0 v1=100", "320 v2=100"],
        ["Started NewRevision", "Held ScaledToZero", "Held ScaledUp", "Promoted Ready"],
        {5: now(replicas=0), 300: now(replicas=1)},
    ),
    "somebody deletes the stable Deployment": Case(
        STEPS,
        ["0 v1=100", "20 v2=20", "30 v2=100"],
        ["Started NewRevision", "Advanced Ready", "Promoted StableGone"],
        {30: loses_its_deployment("v1")},
    ),
}


def play(case: Case, carries_out: Callable[[int], bool] = lambda turn: True) -> Simulation:
    """The whole case."""
    simulation = started(rollout(**case.rules), **case.service)
    simulation.target, simulation.turns, simulation.carries_out = "v2", 0, carries_out
    for second in sorted(case.then):
        if second:
            simulation.run(second - simulation.clock)
        case.then[second](simulation)
    return simulation.run(case.last - simulation.clock)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_rollout(case: Case) -> None:
    simulation = play(case)
    state = simulation.state
    rejected = state.rejected.revision if state.rejected else None
    assert (simulation.weights, simulation.decisions) == (case.weights, case.decisions)
    assert (state.stable, rejected, state.candidate) == (*case.end, None)
    assert simulation.deployments.keys() == {state.stable} - {None}, "pods of nobody else are left"
    if case.says:
        assert state.history[0].message == case.says


@pytest.mark.parametrize("turn", range(1, 20))
@pytest.mark.parametrize(
    "name", ["a good canary moves step by step and takes all", "it flaps until the third bad check"]
)
def test_killed_after_any_status_it_ends_as_an_undisturbed_one(name: str, turn: int) -> None:
    case = CASES[name]
    killed = play(case, carries_out=lambda number: number != turn)
    assert (killed.weights, killed.decisions) == (case.weights, case.decisions)


def test_a_rollout_at_rest_asks_nothing_of_prometheus_and_wakes_nobody() -> None:
    simulation = play(CASES["a good canary moves step by step and takes all"])
    turns = simulation.turns
    decided = simulation.turn()
    assert decided.requeue_after is None
    simulation.run(1_000_000)
    assert simulation.turns - turns <= 3, "one here, one at each end"
