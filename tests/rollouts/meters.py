"""The metrics of one server pod, by the names and labels of vLLM, of our middleware and of the supervisor."""

from __future__ import annotations

from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunewright_api.names import (
    METRIC_LABEL_NAMESPACE,
    METRIC_LABEL_REVISION,
    METRIC_LABEL_SERVICE,
    METRIC_LABEL_VERSION,
)
from tunewright_api.server_config import ServerConfig

OUTCOMES = ("Completed", "ClientError", "ServerError", "Broken", "ClientClosed")
SOURCES = ("client", "probe")
FINISH_REASONS = ("stop", "length", "abort", "error")

# vLLM's own buckets, in seconds.
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Meters:
    """Counters of one container: a restart begins again at zero, with a new `Meters`."""

    def __init__(self, config: ServerConfig) -> None:
        identity = config.identity
        self._registry = CollectorRegistry()
        self._labels = {
            METRIC_LABEL_NAMESPACE: identity.namespace,
            METRIC_LABEL_SERVICE: identity.service,
            METRIC_LABEL_VERSION: identity.version,
            METRIC_LABEL_REVISION: identity.revision,
        }
        self._engine = {"engine": "0", "model_name": config.model.served_name}
        self.first_token = self._histogram("vllm:time_to_first_token_seconds", FIRST_TOKEN_BUCKETS)
        self.per_token = self._histogram("vllm:request_time_per_output_token_seconds", PER_TOKEN_BUCKETS)
        self.whole = self._histogram("vllm:e2e_request_latency_seconds", REQUEST_BUCKETS)
        self.prompt_tokens = self._counter("vllm:prompt_tokens", **self._engine)
        self.generated_tokens = self._counter("vllm:generation_tokens", **self._engine)
        self.running = self._gauge("vllm:num_requests_running", **self._engine)
        self._gauge("vllm:num_requests_waiting", **self._engine)
        self._gauge("vllm:kv_cache_usage_perc", **self._engine)
        self.ready = self._gauge("tunewright_server_ready")
        self._gauge("tunewright_server_gpus").set(config.gpus)
        self._finished = Counter(**self._family("vllm:request_success", *self._engine, "finished_reason"))
        self._requests = Counter(**self._family("tunewright_requests", "outcome", "source"))
        self._in_flight = Gauge(**self._family("tunewright_requests_in_flight", "source"))
        for reason in FINISH_REASONS:
            self.finished(reason, 0)
        for source in SOURCES:
            self.in_flight(source, 0)
            for outcome in OUTCOMES:
                self.request(outcome, source, 0)

    def request(self, outcome: str, source: str, count: int = 1) -> None:
        """Count a request that is over, as the middleware does."""
        self._requests.labels(**self._labels, outcome=outcome, source=source).inc(count)

    def in_flight(self, source: str, change: int) -> None:
        """A request came or went."""
        self._in_flight.labels(**self._labels, source=source).inc(change)

    def finished(self, reason: str, count: int = 1) -> None:
        """Count a generation that is over, as vLLM does."""
        self._finished.labels(**self._labels, **self._engine, finished_reason=reason).inc(count)

    def text(self) -> bytes:
        """The answer to a scrape."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(**self._family(name, *self._engine), buckets=buckets)
        return family.labels(**self._labels, **self._engine)

    def _counter(self, name: str, **more: str) -> Counter:
        return Counter(**self._family(name, *more)).labels(**self._labels, **more)

    def _gauge(self, name: str, **more: str) -> Gauge:
        return Gauge(**self._family(name, *more)).labels(**self._labels, **more)

    def _family(self, name: str, *more: str) -> dict[str, Any]:
        return {
            "name": name,
            "documentation": name,
            "labelnames": [*self._labels, *more],
            "registry": self._registry,
        }
