"""Everything that is scraped, in one process: the real metrics of operator, trainer and server pods, set by a script.

vLLM and NVIDIA's exporter are imitated by the names of their metrics. Each scrape is a second later than the last.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunewright_api.results import Progress
from tunewright_api.server_config import ServerIdentity
from tunewright_api.trainer_config import JobIdentity
from tunewright_monitoring.reference import VLLM
from tunewright_operator.metrics import Metrics
from tunewright_server.exposition import add_labels, identity_labels, render_own
from tunewright_server.middleware import RequestMetrics
from tunewright_trainer.steps import StepRecord
from tunewright_trainer.telemetry import Telemetry

Scrape = Callable[[], str]

NAMESPACE, SERVICE, JOB = "team", "guide", "guide-lora"
SINCE = "2026-01-02T03:04:05Z"


def operator() -> Scrape:
    """An operator that has rolled one version back, promotes another, and lost a training attempt."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    key = ("InferenceService", NAMESPACE, SERVICE)
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": SINCE}
    started = {"time": SINCE, "decision": "Started", "revision": "cccc3333", "weight": 0, "reason": "NewRevision"}
    metrics.observe_status(key, {"conditions": [ready]})
    metrics.observe_status(("FineTuneJob", NAMESPACE, JOB), {"stage": "Training"})
    metrics.observe_stages([("prepare", 12.0), ("train", 340.0)])
    metrics.restarts.labels("NodeLost").inc()
    metrics.reconcile_errors.labels("InferenceService", "Conflict").inc()
    seconds = 0

    def scrape() -> str:
        nonlocal seconds
        seconds += 1
        candidate = {"version": "guide-v3", "revision": "cccc3333", "weight": min(50, 10 * seconds), "startedAt": SINCE}
        rejected = {"version": "guide-v2", "revision": "bbbb2222", "reason": "TTFTP95"}
        status = {"conditions": [ready], "candidate": candidate, "rejected": rejected, "history": [started]}
        metrics.observe_status(key, status)
        return generate_latest(registry).decode()

    return scrape


def server(version: str, revision: str, *, seconds_per_token: float) -> Scrape:
    """A server pod that answers ten requests a second, of which one fails."""
    registry = CollectorRegistry()
    requests = RequestMetrics(registry)
    engine = _engine(registry)
    labels = identity_labels(ServerIdentity(namespace=NAMESPACE, service=SERVICE, version=version, revision=revision))
    seconds = 0

    def scrape() -> str:
        nonlocal seconds
        seconds += 1
        for at in range(10):
            requests.total.labels("ServerError" if at == 0 else "Completed", "client").inc()
            engine["vllm:time_to_first_token_seconds"].observe(seconds_per_token * (2 + at))
            engine["vllm:request_time_per_output_token_seconds"].observe(seconds_per_token)
            engine["vllm:e2e_request_latency_seconds"].observe(seconds_per_token * 50)
            engine["vllm:request_success_total"].labels("abort" if at == 0 else "stop").inc()
        engine["vllm:generation_tokens_total"].inc(480)
        engine["vllm:prompt_tokens_total"].inc(900)
        engine["vllm:num_requests_running"].set(3 + seconds % 3)
        engine["vllm:kv_cache_usage_perc"].set(0.05 * (seconds % 10))
        return add_labels(generate_latest(registry).decode(), labels) + render_own(labels, ready=True, gpus=0)

    return scrape


def _engine(registry: CollectorRegistry) -> dict[str, Any]:
    make = {"histogram": Histogram, "counter": Counter, "gauge": Gauge}
    labels = {"vllm:request_success_total": ["finished_reason"]}
    return {
        name: make[kind](name, text, labels.get(name, ()), registry=registry) for name, (kind, text) in VLLM.items()
    }


def trainer() -> Scrape:
    """Rank 0 of a run that does a step a second."""
    telemetry = Telemetry(JobIdentity(namespace=NAMESPACE, name=JOB, uid="1"))
    step = 0

    def scrape() -> str:
        nonlocal step
        step += 1
        finished = StepRecord(
            step=step,
            total_steps=90,
            epoch=step / 30,
            loss=2.2 / step,
            learning_rate=2e-4 * (1 - step / 90),
            grad_norm=1.5 / step,
            seconds=0.8,
            data_wait_seconds=0.004,
            checkpoint_stall_seconds=0.02,
            tokens=4096,
            tokens_per_second=4096.0,
            samples=8,
            memory_bytes=30 << 30,
            peak_memory_bytes=41 << 30,
        )
        telemetry.observe_step(finished, mfu=0.42)
        telemetry.publish(
            Progress(
                step=step,
                total_steps=90,
                epoch=step / 30,
                eta_seconds=90.0 - step,
                tokens_per_second=4096.0,
                loss=2.2 / step,
                learning_rate=2e-4 * (1 - step / 90),
                checkpoint_step=step // 10 * 10,
            )
        )
        return generate_latest(telemetry.registry).decode()

    return scrape


def gpus() -> Scrape:
    """NVIDIA's exporter: a GPU of a training pod, and one of the pod `server-a`."""
    pods = {"0": "guide-lora-train-0-0-abcde", "1": "server-a"}
    lines = [
        f'{name}{{gpu="{gpu}",Hostname="node-1",namespace="{NAMESPACE}",pod="{pod}"}} {value}'
        for gpu, pod in pods.items()
        for name, value in (
            ("DCGM_FI_DEV_FB_USED", 60_000),
            ("DCGM_FI_DEV_FB_FREE", 20_000),
            ("DCGM_FI_DEV_GPU_UTIL", 93),
        )
    ]
    return lambda: "\n".join(lines) + "\n"


PODS: dict[str, Callable[[], Scrape]] = {
    "operator": operator,
    "server-a": lambda: server("guide-v1", "aaaa1111", seconds_per_token=0.02),
    "server-b": lambda: server("guide-v3", "cccc3333", seconds_per_token=0.015),
    "trainer": trainer,
    "gpus": gpus,
}


@contextlib.contextmanager
def exporters() -> Iterator[str]:
    """Answer at HOST:PORT, /POD/metrics for each of PODS, while the block runs."""
    scrapes = {f"/{name}/metrics": make() for name, make in PODS.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = scrapes[self.path]().encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
