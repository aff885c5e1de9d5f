"""docs/reference/metrics.md: every metric with the code that exports it as the source, every rule and every alert."""

import re
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tunewright_api.trainer_config import JobIdentity
from tunewright_monitoring import names
from tunewright_monitoring.alerts import ALERTS
from tunewright_monitoring.recording import RECORDINGS
from tunewright_operator.metrics import Metrics
from tunewright_server.exposition import render_own
from tunewright_server.middleware import RequestMetrics
from tunewright_trainer.telemetry import Telemetry

# What vLLM says about the metrics of its that rules and dashboards use, in our words.
VLLM = {
    names.FIRST_TOKEN_SECONDS: ("histogram", "Time from a request's arrival to its first token."),
    names.OUTPUT_TOKEN_SECONDS: ("histogram", "Mean time per output token of a request, after the first."),
    names.LATENCY_SECONDS: ("histogram", "Time from a request's arrival to its last token."),
    names.FINISHED: ("counter", "Generations that ended, by `finished_reason`: stop, length, abort, error."),
    names.OUTPUT_TOKENS: ("counter", "Tokens written."),
    names.PROMPT_TOKENS: ("counter", "Tokens read."),
    names.RUNNING: ("gauge", "Requests that are worked on."),
    names.WAITING: ("gauge", "Requests that wait for room."),
    names.KV_CACHE: ("gauge", "Share of the KV cache that is used, 0 to 1."),
}

Row = tuple[str, ...]


def metrics_reference() -> str:
    """The page."""
    identity = ", ".join(f"`{label}`" for label in names.REVISION.split(", "))
    parts = [
        "<!-- Generated from monitoring/ by `make generate`. Do not edit. -->\n",
        "# Metrics, rules and alerts\n",
        "How they get into a Prometheus: [Monitoring](../monitoring.md).\n",
        _section("Operator", "Port 8080.", _metric_rows(operator_metrics())),
        _section("Training", "Rank 0 of a run, port 9090, while it trains.", _metric_rows(trainer_metrics())),
        _section(
            "Server pod",
            f"Port 8001. Every sample has the labels {identity}, also those of vLLM.",
            _metric_rows(server_metrics()),
        ),
        _section(
            "vLLM",
            "Relayed by the server pod with the same labels. Those that rules and dashboards use:",
            ((f"`{name}`", kind, "", text) for name, (kind, text) in VLLM.items()),
        ),
        "## Recording rules\n",
        _table(("name", "labels", "meaning"), _recording_rows()),
        "## Alerts\n",
        "Thresholds are chart values below `monitoring.thresholds`. Each alert has a page.\n",
        _table(("alert", "severity", "fires after", "thresholds", "needs"), _alert_rows()),
    ]
    return "\n".join(parts)


def operator_metrics() -> list[tuple[Metric, Row]]:
    """(family, label names) of what the operator exports."""
    registry = CollectorRegistry()
    Metrics(registry)
    return _families(registry)


def trainer_metrics() -> list[tuple[Metric, Row]]:
    """(family, label names) of what rank 0 exports."""
    return _families(Telemetry(JobIdentity(namespace="team", name="guide", uid="1")).registry)


def server_metrics() -> list[tuple[Metric, Row]]:
    """(family, label names) of what a server pod exports besides vLLM's own."""
    registry = CollectorRegistry()
    RequestMetrics(registry)
    own = text_string_to_metric_families(render_own({}, ready=True, gpus=0))
    return _families(registry) + [(family, ()) for family in own]


def sample_name(family: Metric) -> str:
    """The name by which a query finds it; a histogram has the suffixes _bucket, _sum and _count besides."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def _families(registry: CollectorRegistry) -> list[tuple[Metric, Row]]:
    # prometheus_client keeps the names of labels to itself until there is a sample.
    collectors = [one for one in registry._collector_to_names if isinstance(one, MetricWrapperBase)]
    return [(family, tuple(one._labelnames)) for one in collectors for family in one.describe()]


def _metric_rows(families: Iterable[tuple[Metric, Row]]) -> Iterator[Row]:
    for family, labels in families:
        yield f"`{sample_name(family)}`", family.type, ", ".join(map("`{}`".format, labels)), family.documentation


def _recording_rows() -> Iterator[Row]:
    for rule in RECORDINGS:
        by = rule.expr.split(" by (", 1)[1].split(")", 1)[0].replace(", le", "")
        yield f"`{rule.record}`", ", ".join(f"`{label}`" for label in by.split(", ")), rule.help


def _alert_rows() -> Iterator[Row]:
    for alert in ALERTS:
        hold = re.sub(r"\$\{(\w+)\}m", r"`\1` minutes", alert.hold) or "at once"
        thresholds = ", ".join(f"`{name}`" for name in sorted(alert.thresholds))
        yield f"[{alert.name}](../runbooks/{alert.name}.md)", alert.severity, hold, thresholds, alert.needs


def _section(title: str, text: str, rows: Iterable[Row]) -> str:
    return f"## {title}\n\n{text}\n\n{_table(('metric', 'type', 'labels', 'meaning'), rows)}"


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
