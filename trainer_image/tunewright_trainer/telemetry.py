"""GET /metrics (Prometheus) and GET /progress (JSON) on rank 0, from the first second of the worker."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from tunewright_api.results import Progress
from tunewright_api.trainer_config import JobIdentity
from tunewright_trainer.steps import StepRecord

_STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class LateGauge(Gauge):
    """A gauge without a sample until it is set: 0 would be a lie."""

    _is_set = False

    def set(self, value: float) -> None:
        """Set the value; from now on there is a sample."""
        super().set(value)
        self._is_set = True

    def collect(self) -> Iterable[Metric]:
        """What it is, and the sample if there is one."""
        for metric in super().collect():
            if not self._is_set:
                metric.samples.clear()
            yield metric


class Telemetry:
    """The newest progress, and the metrics made from it.

    Attributes:
        progress: Answer of GET /progress; None before the length of the run is known.
    """

    def __init__(self, job: JobIdentity) -> None:
        self.registry = CollectorRegistry()
        self.progress: Progress | None = None

        def gauge(name: str, text: str) -> Gauge:
            return LateGauge(f"tunewright_train_{name}", text, registry=self.registry)

        self._gauges = {
            "loss": gauge("loss", "Training loss of the last optimizer step, mean over assistant tokens."),
            "eval_loss": gauge("eval_loss", "Newest loss on held-out records; absent before the first one."),
            "learning_rate": gauge("learning_rate", "Learning rate of the last optimizer step."),
            "tokens_per_second": gauge("tokens_per_second", "Tokens per second over all processes."),
            "step": gauge("step", "Optimizer steps done."),
            "total_steps": gauge("total_steps", "Optimizer steps of the whole run."),
            "epoch": gauge("epoch", "Passes over the training records done."),
            "eta_seconds": gauge("eta_seconds", "Expected seconds to the last step."),
            "gpu_memory_percent": gauge(
                "gpu_memory_percent", "Memory allocated on the GPU of rank 0, in percent; absent on a CPU."
            ),
            "checkpoint_step": gauge("checkpoint_step", "Step of the newest complete checkpoint."),
        }
        self._step_gauges = {
            "grad_norm": gauge("grad_norm", "Norm of the gradient before clipping."),
            "samples_per_second": gauge("samples_per_second", "Records per second over all processes."),
            "data_wait_share": gauge("data_wait_share", "Part of the last step spent waiting for data, 0 to 1."),
            "memory_bytes": gauge("memory_bytes", "Memory that rank 0 holds: allocated on its GPU, or resident."),
            "peak_memory_bytes": gauge("peak_memory_bytes", "The most memory that rank 0 held."),
        }
        self._mfu = gauge(
            "mfu", "Model FLOPs utilisation, 0 to 1; absent where the peak of the device is unknown, as on a CPU."
        )
        self._checkpoint_stall = Counter(
            "tunewright_train_checkpoint_stall_seconds",
            "Seconds in which checkpoints kept training waiting.",
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "tunewright_train_step_seconds",
            "Seconds per optimizer step.",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Counter("tunewright_train_tokens", "Tokens read, over all processes.", registry=self.registry)
        self._startup = Gauge(
            "tunewright_train_startup_seconds",
            "Seconds from the start of rank 0's pod to the first step, by part.",
            ["part"],
            registry=self.registry,
        )
        info = Gauge(
            "tunewright_train_info", "The job; always 1.", ["namespace", "name", "uid"], registry=self.registry
        )
        info.labels(job.namespace, job.name, job.uid).set(1)

    def publish(self, progress: Progress) -> None:
        """Replace the progress; readers see the old or the new one."""
        self.progress = progress
        for name, metric in self._gauges.items():
            value = getattr(progress, name)
            if value is not None:
                metric.set(value)

    def observe_startup(self, parts: Mapping[str, float]) -> None:
        """Note the seconds of each part of the way to the first step."""
        for part, seconds in parts.items():
            self._startup.labels(part).set(seconds)

    def observe_step(self, record: StepRecord, mfu: float | None = None) -> None:
        """Count a finished optimizer step, with its utilisation where that is known."""
        self._step_seconds.observe(record.seconds)
        self._tokens.inc(record.tokens)
        self._checkpoint_stall.inc(record.checkpoint_stall_seconds)
        for name, metric in self._step_gauges.items():
            metric.set(getattr(record, name))
        if mfu is not None:
            self._mfu.set(mfu)

    def serve(self, port: int) -> http.server.ThreadingHTTPServer:
        """Start answering in a daemon thread."""
        server = _server(port, _handler(self))
        threading.Thread(target=server.serve_forever, name="telemetry", daemon=True).start()
        return server


def _handler(telemetry: Telemetry) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, _METRICS_TYPE, generate_latest(telemetry.registry))
            elif self.path == "/progress":
                self._tell(telemetry.progress)
            elif self.path == "/healthz":
                self._answer(200, "text/plain", b"ok\n")
            else:
                self._answer(404, "text/plain", b"there are /metrics, /progress and /healthz\n")

        def _tell(self, progress: Progress | None) -> None:
            if progress is None:
                self._answer(503, "text/plain", b"the length of the run is not known yet\n")
            else:
                # pydantic writes null for a number that is none; json.dumps would write NaN, which is not JSON.
                body = progress.model_dump_json(by_alias=True, exclude_none=True)
                self._answer(200, "application/json", body.encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape every few seconds is no news."""

    return Handler


def _server(port: int, handler: type[http.server.BaseHTTPRequestHandler]) -> http.server.ThreadingHTTPServer:
    class DualStack(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
        daemon_threads = True

        def server_bind(self) -> None:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    class IPv4(http.server.ThreadingHTTPServer):
        daemon_threads = True

    if socket.has_ipv6:
        try:
            return DualStack(("::", port), handler)
        except OSError:
            # The kernel has IPv6 but this network namespace does not, or the port is taken: IPv4 tells which.
            pass
    return IPv4(("0.0.0.0", port), handler)
