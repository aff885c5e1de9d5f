"""How one revision takes over from another: who decided what, and both side by side."""

from tunewright_monitoring.dashboards.choice import OF_SERVICE, SERVICE_VARIABLES
from tunewright_monitoring.names import (
    FIRST_TOKEN_SECONDS,
    OUTPUT_TOKEN_SECONDS,
    READY,
    REVISION,
    ROLLOUT_DECISIONS,
    ROLLOUT_REJECTED,
    ROLLOUT_STARTED,
    ROLLOUT_WEIGHT,
    SERVER_READY,
    SERVICE,
    VERSION,
)
from tunewright_monitoring.panels import RATE_INTERVAL, Dashboard, Kind, Panel, Query, Row, Unit
from tunewright_monitoring.recording import client_requests, completion_rate, error_rate, quantile

_SERVICE = "{{inference_service}}"
_REVISION = "{{model_version}} {{revision}}"


def _quantile(title: str, percent: int, histogram: str) -> Panel:
    return Panel(
        f"{title}, p{percent}",
        "Of both revisions. The rollout compares it over its own interval.",
        (Query(quantile(percent, histogram, REVISION, RATE_INTERVAL, OF_SERVICE), _REVISION),),
        Unit.SECONDS,
    )


ROLLOUT = Dashboard(
    uid="tunewright-rollout",
    title="Tunewright / Rollout",
    description="How one revision of an InferenceService takes over from another, and why it did or did not.",
    variables=SERVICE_VARIABLES,
    rows=(
        Row(
            "Decisions",
            (
                Panel(
                    "Ready",
                    "1: real completions come back.",
                    (Query(f"max by ({SERVICE}) ({READY}{OF_SERVICE})", _SERVICE),),
                    kind=Kind.LAST,
                    height=5,
                ),
                Panel(
                    "On its way for",
                    "Empty without a rollout.",
                    (Query(f"time() - max by ({SERVICE}) ({ROLLOUT_STARTED}{OF_SERVICE})", _SERVICE),),
                    Unit.SECONDS,
                    Kind.LAST,
                    height=5,
                ),
                Panel(
                    "Rolled back",
                    "The version that is not tried again, and the reason. Empty without one.",
                    (
                        Query(
                            f"max by ({VERSION}, reason) ({ROLLOUT_REJECTED}{OF_SERVICE})",
                            "{{model_version}}: {{reason}}",
                        ),
                    ),
                    kind=Kind.LAST,
                    height=5,
                ),
                Panel(
                    "Weight of the candidate",
                    "Percent of the traffic; the rest goes to the stable revision.",
                    (Query(f"max by ({REVISION}) ({ROLLOUT_WEIGHT}{OF_SERVICE})", _REVISION),),
                    Unit.PERCENT,
                    width=12,
                ),
                Panel(
                    "Decisions",
                    "Counted since the operator began.",
                    (
                        Query(
                            f"sum by ({SERVICE}, decision, reason) ({ROLLOUT_DECISIONS}{OF_SERVICE})",
                            f"{_SERVICE} {{{{decision}}}}: {{{{reason}}}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "The revisions side by side",
            (
                Panel(
                    "Requests",
                    "Of clients, without those that clients got wrong.",
                    (Query(client_requests(REVISION, RATE_INTERVAL, OF_SERVICE), _REVISION),),
                    Unit.PER_SECOND,
                ),
                Panel(
                    "Error rate",
                    "Requests that ended with an error of the server or broke off.",
                    (Query(error_rate(REVISION, RATE_INTERVAL, OF_SERVICE), _REVISION),),
                    Unit.PERCENT,
                ),
                Panel(
                    "Completion rate",
                    "Answers that came to their end or to their token limit.",
                    (Query(completion_rate(REVISION, RATE_INTERVAL, OF_SERVICE), _REVISION),),
                    Unit.PERCENT,
                ),
                _quantile("Time to the first token", 50, FIRST_TOKEN_SECONDS),
                _quantile("Time to the first token", 95, FIRST_TOKEN_SECONDS),
                _quantile("Time per output token", 95, OUTPUT_TOKEN_SECONDS),
                Panel(
                    "Ready pods",
                    "Pods that answered a real completion.",
                    (Query(f"sum by ({REVISION}) ({SERVER_READY}{OF_SERVICE})", _REVISION),),
                    width=24,
                    height=5,
                ),
            ),
        ),
    ),
)
