"""What the operator says about itself and its objects on /metrics.

The figures of an object follow from its status, are kept by its loop, and are forgotten with it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.registry import CollectorRegistry

from tunewright_api.names import (
    METRIC_LABEL_NAMESPACE,
    METRIC_LABEL_REVISION,
    METRIC_LABEL_SERVICE,
    METRIC_LABEL_VERSION,
)
from tunewright_operator.status import figures
from tunewright_operator.status.summary import summarize_state

# kind, namespace, name
Key = tuple[str, str, str]
Series = tuple[Gauge | Counter, tuple[str, ...]]

_SERVICE = (METRIC_LABEL_NAMESPACE, METRIC_LABEL_SERVICE)


class Metrics:
    """The operator's metrics in one registry (a fresh one in tests)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tunewright_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tunewright_{name}", text, labels, registry=registry)

        self.reconcile_seconds = Histogram(
            "tunewright_reconcile_seconds", "Duration of one reconcile.", ["kind"], registry=registry
        )
        self.reconcile_errors = counter(
            "reconcile_errors", "Reconciles that raised, by type of error.", "kind", "error"
        )
        self.status_writes = counter("status_writes", "Statuses written to the apiserver.", "kind")
        self.stage_seconds = Histogram(
            "tunewright_stage_seconds",
            "Duration of the finished stages of FineTuneJobs.",
            ["stage"],
            buckets=(10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600),
            registry=registry,
        )
        self.restarts = counter("training_restarts", "Training attempts that were lost, by cause.", "cause")
        # The others have no sample while there is no object, so their absence tells nothing.
        gauge("operator_up", "Always 1: the operator runs.").set(1)
        self._objects = gauge("objects", "Objects by kind and state.", "kind", "state")
        self._failed = gauge(
            "finetunejob_failed_timestamp_seconds",
            "When the FineTuneJob failed for good; absent otherwise.",
            *("namespace", "name", "reason"),
        )
        self._ready = gauge(
            "inference_service_ready", "Whether real completions come back from the service.", *_SERVICE
        )
        self._weight = gauge(
            "rollout_weight",
            "Percent of the traffic that the candidate gets; absent without one.",
            *(*_SERVICE, METRIC_LABEL_VERSION, METRIC_LABEL_REVISION),
        )
        self._started = gauge(
            "rollout_started_timestamp_seconds", "When the candidate set out; absent without one.", *_SERVICE
        )
        self._rejected = gauge(
            "rollout_rejected",
            "1 for the version that was rolled back and is not tried again.",
            *(*_SERVICE, METRIC_LABEL_VERSION, "reason"),
        )
        self._decisions = counter(
            "rollout_decisions",
            "Decisions about rollouts; equal holds in a row are one.",
            *(*_SERVICE, "decision", "reason"),
        )
        self._states: dict[Key, str] = {}
        self._statuses: dict[Key, figures.Status] = {}
        self._series: dict[Key, set[Series]] = {}

    def observe_status(self, key: Key, status: Mapping[str, Any]) -> None:
        """Take the figures of an object from the status that was just stored.

        Decisions are counted from the object's second status on: those in the history of its first one were taken, and
        counted, before this operator began.
        """
        self.set_state(key, summarize_state(status))
        kind, namespace, name = key
        if kind == "InferenceService":
            shown = {
                self._ready: figures.ready_samples(namespace, name, status),
                self._weight: figures.weight_samples(namespace, name, status),
                self._started: figures.started_samples(namespace, name, status),
                self._rejected: figures.rejected_samples(namespace, name, status),
            }
            self._show(key, shown)
            for decision in figures.new_decisions(self._statuses.get(key, status), status):
                self._count(key, self._decisions, (namespace, name, *decision))
        elif kind == "FineTuneJob":
            self._show(key, {self._failed: figures.failed_samples(namespace, name, status)})
        self._statuses[key] = status

    def set_state(self, key: Key, state: str) -> None:
        """Count the object under this state, and no longer under its old one."""
        if self._states.get(key) == state:
            return
        self._forget_state(key)
        self._states[key] = state
        self._objects.labels(key[0], state).inc()

    def forget(self, key: Key) -> None:
        """The object's loop has ended: none of its series stays."""
        self._forget_state(key)
        self._statuses.pop(key, None)
        for metric, labels in self._series.pop(key, ()):
            metric.remove(*labels)

    def observe_stages(self, durations: Iterable[tuple[str, float]]) -> None:
        """Record stages that have just finished, in seconds."""
        for stage, seconds in durations:
            self.stage_seconds.labels(stage).observe(seconds)

    def _forget_state(self, key: Key) -> None:
        if old := self._states.pop(key, None):
            self._objects.labels(key[0], old).dec()

    def _show(self, key: Key, shown: Mapping[Gauge, figures.Samples]) -> None:
        """Make these the object's only samples of these gauges."""
        series = self._series.setdefault(key, set())
        wanted = {(gauge, labels) for gauge, samples in shown.items() for labels in samples}
        for gauge, labels in [one for one in series if one[0] in shown and one not in wanted]:
            gauge.remove(*labels)
            series.remove((gauge, labels))
        series |= wanted
        for gauge, samples in shown.items():
            for labels, value in samples.items():
                gauge.labels(*labels).set(value)

    def _count(self, key: Key, counter: Counter, labels: tuple[str, ...]) -> None:
        """Count one event of the object."""
        counter.labels(*labels).inc()
        self._series.setdefault(key, set()).add((counter, labels))
