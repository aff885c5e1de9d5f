"""What users of the services feel, and what the pods do for it."""

from tunewright_monitoring.dashboards.choice import OF_CLIENTS, OF_SERVICE, SERVICE_VARIABLES
from tunewright_monitoring.names import (
    IN_FLIGHT,
    KV_CACHE,
    LATENCY_SECONDS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REQUESTS,
    RUNNING,
    SERVER_READY,
    SERVICE,
    VERSION,
    WAITING,
)
from tunewright_monitoring.panels import RATE_INTERVAL, Dashboard, Panel, Query, Row, Unit
from tunewright_monitoring.recording import (
    COMPLETION_RATE,
    ERROR_RATE,
    FIRST_TOKEN,
    GPU_MEMORY,
    GPU_UTILIZATION,
    OUTPUT_TOKEN,
    REQUEST_RATE,
    TOKENS_PER_GPU,
    quantile,
)

_VERSION = "{{inference_service}} {{model_version}}"
_GPU = "{{pod}} GPU {{gpu}}"


def _quantiles(record: str, *percents: int) -> tuple[Query, ...]:
    return tuple(Query(f"{record}:p{percent}{OF_SERVICE}", f"{_VERSION} p{percent}") for percent in percents)


def _by_version(metric: str) -> str:
    return f"sum by ({VERSION}) ({metric}{OF_SERVICE})"


def _per_second(metric: str) -> str:
    return f"sum by ({VERSION}) (rate({metric}{OF_SERVICE}[{RATE_INTERVAL}]))"


SERVING = Dashboard(
    uid="tunewright-serving",
    title="Tunewright / Serving",
    description="What users of the InferenceServices feel, and what the pods do for it.",
    variables=SERVICE_VARIABLES,
    rows=(
        Row(
            "What users feel",
            (
                Panel(
                    "Time to the first token",
                    "From the arrival of a request to its first token, over five minutes.",
                    _quantiles(FIRST_TOKEN, 50, 95, 99),
                    Unit.SECONDS,
                ),
                Panel(
                    "Time per output token",
                    "Between two tokens of an answer, over five minutes.",
                    _quantiles(OUTPUT_TOKEN, 50, 95),
                    Unit.SECONDS,
                ),
                Panel(
                    "Whole answers",
                    "From the arrival of a request to its last token; long answers take long.",
                    (Query(quantile(95, LATENCY_SECONDS, VERSION, RATE_INTERVAL, OF_SERVICE), f"{_VERSION} p95"),),
                    Unit.SECONDS,
                ),
                Panel(
                    "Error rate",
                    "Requests that ended with an error of the server or broke off, over five minutes.",
                    (Query(f"{ERROR_RATE}{OF_SERVICE}", _VERSION),),
                    Unit.PERCENT,
                ),
                Panel(
                    "Completion rate",
                    "Answers that came to their end or to their token limit, over five minutes.",
                    (Query(f"{COMPLETION_RATE}{OF_SERVICE}", _VERSION),),
                    Unit.PERCENT,
                ),
                Panel(
                    "Requests",
                    "Requests of clients, without those that clients got wrong, over five minutes.",
                    (Query(f"{REQUEST_RATE}{OF_SERVICE}", _VERSION),),
                    Unit.PER_SECOND,
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "Requests by outcome",
                    "Of clients. ClientError: their request was wrong. ClientClosed: they left before the end.",
                    (
                        Query(
                            f"sum by ({SERVICE}, outcome) (rate({REQUESTS}{OF_CLIENTS}[{RATE_INTERVAL}]))",
                            "{{inference_service}} {{outcome}}",
                        ),
                    ),
                    Unit.PER_SECOND,
                ),
                Panel(
                    "Requests under way",
                    "Waiting: vLLM has no room for them yet.",
                    (
                        Query(_by_version(RUNNING), f"{_VERSION} running"),
                        Query(_by_version(WAITING), f"{_VERSION} waiting"),
                        Query(_by_version(IN_FLIGHT), f"{_VERSION} open"),
                    ),
                ),
                Panel(
                    "KV cache",
                    "Share of the cache that is used, of the fullest pod. A full one makes requests wait.",
                    (Query(f"max by ({VERSION}) ({KV_CACHE}{OF_SERVICE})", _VERSION),),
                    Unit.FRACTION,
                ),
                Panel(
                    "Tokens per second",
                    "Of all pods together.",
                    (
                        Query(_per_second(OUTPUT_TOKENS), f"{_VERSION} written"),
                        Query(_per_second(PROMPT_TOKENS), f"{_VERSION} read"),
                    ),
                ),
                Panel(
                    "Output tokens per second and GPU",
                    "Per pod where pods have no GPU, over five minutes.",
                    (Query(f"{TOKENS_PER_GPU}{OF_SERVICE}", _VERSION),),
                ),
                Panel(
                    "Ready pods",
                    "Pods that answered a real completion.",
                    (Query(_by_version(SERVER_READY), _VERSION),),
                ),
            ),
        ),
        Row(
            "GPUs",
            tuple(
                Panel(
                    title,
                    description,
                    (Query(f"{record} and on (namespace, pod) {SERVER_READY}{OF_SERVICE}", _GPU),),
                    Unit.PERCENT,
                    width=12,
                    gpu=True,
                )
                for title, description, record in (
                    (
                        "GPU memory",
                        "vLLM takes its share when it starts, and holds it: see the KV cache.",
                        GPU_MEMORY,
                    ),
                    ("GPU utilization", "Share of the time that the GPU computes.", GPU_UTILIZATION),
                )
            ),
        ),
    ),
)
