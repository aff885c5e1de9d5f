"""The operator's figures of an object: from its status to the samples that Prometheus reads, and gone with it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tunewright_operator.metrics import Metrics
from tunewright_operator.status.figures import new_decisions

Object = dict[str, Any]
Samples = dict[str, float]

SERVICE = ("InferenceService", "team", "guide")
JOB = ("FineTuneJob", "team", "guide")
STARTED = "2026-01-02T03:04:05Z"
STARTED_SECONDS = 1767323045.0
WHO = 'inference_service="guide",namespace="team"'


def condition(kind: str, verdict: str = "True", reason: str = "Because") -> Object:
    return {"type": kind, "status": verdict, "reason": reason, "message": "", "lastTransitionTime": STARTED}


def entry(decision: str, weight: int = 10, time: str = STARTED, reason: str = "Passed", count: int = 1) -> Object:
    where = {"revision": "bbbb2222", "version": "guide-v2", "weight": weight}
    return {"time": time, "decision": decision, "reason": reason, "count": count, **where}


def status(ready: str = "True", weight: int | None = None, history: tuple[Object, ...] = (), **more: Any) -> Object:
    """A service's status; with a weight there is a candidate."""
    candidate = {"version": "guide-v2", "revision": "bbbb2222", "weight": weight, "startedAt": STARTED}
    return {
        "conditions": [condition("Ready", ready)],
        **({} if weight is None else {"candidate": candidate}),
        "history": list(history),
        **more,
    }


def samples(registry: CollectorRegistry, *, objects: bool = False) -> Samples:
    """Every sample that tells of an object, as NAME{LABELS}."""
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            if "namespace" in sample.labels and not sample.name.endswith("_created"):
                found[f"{sample.name}{{{labels}}}"] = sample.value
            if objects and sample.name == "tunewright_objects":
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_a_candidate_on_its_way_has_a_weight_and_a_start(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe_status(SERVICE, status(weight=20))
    assert samples(registry) == {
        f"tunewright_inference_service_ready{{{WHO}}}": 1,
        'tunewright_rollout_weight{inference_service="guide",model_version="guide-v2",namespace="team",'
        'revision="bbbb2222"}': 20,
        f"tunewright_rollout_started_timestamp_seconds{{{WHO}}}": STARTED_SECONDS,
    }


def test_a_rollback_leaves_the_rejected_version_and_no_candidate(metrics: Metrics, registry: CollectorRegistry) -> None:
    started = entry("Started")
    metrics.observe_status(SERVICE, status(weight=20, history=(started,)))
    rejected = {"revision": "bbbb2222", "version": "guide-v2", "reason": "ErrorRate", "time": STARTED}
    rolled_back = entry("RolledBack", weight=0, reason="ErrorRate")
    metrics.observe_status(SERVICE, status(history=(rolled_back, started), rejected=rejected))
    assert samples(registry) == {
        f"tunewright_inference_service_ready{{{WHO}}}": 1,
        'tunewright_rollout_rejected{inference_service="guide",model_version="guide-v2",namespace="team",'
        'reason="ErrorRate"}': 1,
        'tunewright_rollout_decisions_total{decision="RolledBack",inference_service="guide",namespace="team",'
        'reason="ErrorRate"}': 1,
    }


@pytest.mark.parametrize(
    ("conditions", "want"),
    [
        ([], None),
        ([condition("Ready", "False")], 0),
        ([condition("Ready", "Unknown")], 0),
        ([condition("Ready"), condition("Degraded")], 1),
    ],
    ids=["asked to have no pods", "not ready", "unknown", "degraded but answering"],
)
def test_ready_is_the_condition(
    metrics: Metrics, registry: CollectorRegistry, conditions: list[Object], want: float | None
) -> None:
    metrics.observe_status(SERVICE, {"conditions": conditions})
    shown = {} if want is None else {f"tunewright_inference_service_ready{{{WHO}}}": want}
    assert samples(registry) == shown


def test_a_failed_job_says_since_when_and_why(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe_status(JOB, {"stage": "Training", "conditions": []})
    assert samples(registry) == {}
    metrics.observe_status(JOB, {"stage": "Failed", "conditions": [condition("Failed", reason="OutOfMemory")]})
    name = 'tunewright_finetunejob_failed_timestamp_seconds{name="guide",namespace="team",reason="OutOfMemory"}'
    assert samples(registry) == {name: STARTED_SECONDS}


def test_the_history_that_a_new_operator_finds_is_not_counted_again(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.observe_status(SERVICE, status(history=(entry("Promoted"), entry("Started"))))
    assert not any("decisions" in name for name in samples(registry))


def test_nothing_of_a_deleted_object_stays(metrics: Metrics, registry: CollectorRegistry) -> None:
    rejected = {"revision": "bbbb2222", "version": "guide-v2", "reason": "ErrorRate", "time": STARTED}
    metrics.observe_status(SERVICE, status(weight=20))
    metrics.observe_status(SERVICE, status(weight=20, history=(entry("Started"),), rejected=rejected))
    metrics.observe_status(JOB, {"stage": "Failed", "conditions": [condition("Failed")]})
    for key in (SERVICE, JOB):
        metrics.forget(key)
        metrics.forget(key)
    assert set(samples(registry, objects=True).values()) == {0.0}
    assert samples(registry) == {}


def test_an_object_is_counted_in_one_state(metrics: Metrics, registry: CollectorRegistry) -> None:
    for state in ("Pending", "Training", "Training", "Complete"):
        metrics.observe_status(JOB, {"stage": state})
    counts = {name: value for name, value in samples(registry, objects=True).items() if value}
    assert counts == {'tunewright_objects{kind="FineTuneJob",state="Complete"}': 1}


def test_services_of_the_same_name_are_told_apart(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe_status(SERVICE, status(ready="False"))
    metrics.observe_status(("InferenceService", "other", "guide"), status())
    metrics.forget(SERVICE)
    other = 'tunewright_inference_service_ready{inference_service="guide",namespace="other"}'
    assert samples(registry) == {other: 1}


STARTED_ENTRY, ADVANCED = entry("Started", 0), entry("Advanced", 10)
HELD, HELD_ON = entry("Held", 10, "T3"), entry("Held", 10, "T4", count=2)


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ([], [], []),
        ([], [STARTED_ENTRY], [("Started", "Passed")]),
        ([STARTED_ENTRY], [HELD, ADVANCED, STARTED_ENTRY], [("Advanced", "Passed"), ("Held", "Passed")]),
        ([HELD, ADVANCED], [HELD_ON, ADVANCED], []),
        ([HELD, ADVANCED], [entry("Held", 20), HELD, ADVANCED], [("Held", "Passed")]),
        ([ADVANCED], [entry("Advanced", 10, "later"), ADVANCED], [("Advanced", "Passed")]),
        ([ADVANCED], [], []),
        ([ADVANCED], [STARTED_ENTRY], [("Started", "Passed")]),
    ],
    ids=[
        "nothing happened",
        "the first decision",
        "two at once",
        "a hold that goes on",
        "a hold at another weight",
        "the same decision at another time",
        "the history was lost",
        "the history is another one",
    ],
)
def test_a_decision_is_counted_once(old: list[Object], new: list[Object], want: list[tuple[str, str]]) -> None:
    assert new_decisions({"history": old}, {"history": new}) == want


@given(st.lists(st.sampled_from(["Started", "Advanced", "Promoted", "RolledBack"]), max_size=30), st.data())
def test_however_the_decisions_arrive_each_is_counted_once(decisions: list[str], data: st.DataObject) -> None:
    """The history holds ten, so up to ten may come at once."""
    all_of_them = [entry(decision, time=str(at)) for at, decision in enumerate(decisions)]
    counted: list[str] = []
    end = 0
    old: list[Object] = []
    while end < len(all_of_them):
        end = min(len(all_of_them), end + data.draw(st.integers(1, 10)))
        new = all_of_them[max(0, end - 10) : end][::-1]
        counted += [decision for decision, _ in new_decisions({"history": old}, {"history": new})]
        old = new
    assert counted == decisions
