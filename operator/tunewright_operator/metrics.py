"""What the operator says about itself on /metrics.

Gauges of objects are kept by the loops: an object is in exactly one state, and forgotten with its loop.
"""

from collections.abc import Iterable

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.registry import CollectorRegistry

Key = tuple[str, str, str]


class Metrics:
    """The operator's metrics in one registry (a fresh one in tests)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.reconcile_seconds = Histogram(
            "tunewright_reconcile_seconds", "Duration of one reconcile.", ["kind"], registry=registry
        )
        self.reconcile_errors = Counter(
            "tunewright_reconcile_errors",
            "Reconciles that raised, by type of error.",
            ["kind", "error"],
            registry=registry,
        )
        self.status_writes = Counter(
            "tunewright_status_writes", "Statuses written to the apiserver.", ["kind"], registry=registry
        )
        self.stage_seconds = Histogram(
            "tunewright_stage_seconds",
            "Duration of the finished stages of FineTuneJobs.",
            ["stage"],
            buckets=(10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600),
            registry=registry,
        )
        self.restarts = Counter(
            "tunewright_training_restarts", "Training attempts that were lost, by cause.", ["cause"], registry=registry
        )
        self._objects = Gauge("tunewright_objects", "Objects by kind and state.", ["kind", "state"], registry=registry)
        self._states: dict[Key, str] = {}

    def set_state(self, key: Key, state: str) -> None:
        """Count the object under this state, and no longer under its old one."""
        if self._states.get(key) == state:
            return
        self.forget(key)
        self._states[key] = state
        self._objects.labels(key[0], state).inc()

    def forget(self, key: Key) -> None:
        """The object's loop has ended."""
        if old := self._states.pop(key, None):
            self._objects.labels(key[0], old).dec()

    def observe_stages(self, durations: Iterable[tuple[str, float]]) -> None:
        """Record stages that have just finished, in seconds."""
        for stage, seconds in durations:
            self.stage_seconds.labels(stage).observe(seconds)
