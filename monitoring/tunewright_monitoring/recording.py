"""Recording rules: what users feel, by service and version. Dashboards and alerts read them.

The window is five minutes: long enough for a scrape a minute, short enough for an alert.
"""

from tunewright_monitoring.names import (
    FINISHED,
    FIRST_TOKEN_SECONDS,
    GPU_MEMORY_FREE,
    GPU_MEMORY_USED,
    GPU_UTILIZED,
    OUTPUT_TOKEN_SECONDS,
    OUTPUT_TOKENS,
    REQUESTS,
    SERVER_GPUS,
    VERSION,
)
from tunewright_monitoring.rules import Recording

WINDOW = "5m"

FIRST_TOKEN = "tunewright:time_to_first_token_seconds"
OUTPUT_TOKEN = "tunewright:time_per_output_token_seconds"
TOKENS_PER_GPU = "tunewright:tokens_per_second_per_gpu"
ERROR_RATE = "tunewright:error_rate:percent"
COMPLETION_RATE = "tunewright:completion_rate:percent"
REQUEST_RATE = "tunewright:requests_per_second"
GPU_MEMORY = "tunewright:gpu_memory_used:percent"
GPU_UTILIZATION = "tunewright:gpu_utilization:percent"


def quantile(percent: int, histogram: str, by: str, window: str, selector: str = "") -> str:
    """Query of a quantile of a histogram, interpolated within a bucket; NaN while nothing is observed."""
    return f"histogram_quantile({percent / 100:g}, sum by ({by}, le) (rate({histogram}_bucket{selector}[{window}])))"


def error_rate(by: str, window: str, selector: str = "") -> str:
    """Query: percent of the answers that were an error of the server or broke off; nothing without requests.

    What clients got wrong counts on neither side, and our own probes are no clients.
    """
    failed = _rate(REQUESTS, by, window, 'source="client", outcome=~"ServerError|Broken"', selector)
    return f"100 * {failed} / ({client_requests(by, window, selector)} > 0)"


def completion_rate(by: str, window: str, selector: str = "") -> str:
    """Query: percent of the generations that came to their end or to their token limit; nothing without any."""
    whole = _rate(FINISHED, by, window, 'finished_reason=~"stop|length"', selector)
    return f"100 * {whole} / ({_rate(FINISHED, by, window, '', selector)} > 0)"


def client_requests(by: str, window: str, selector: str = "") -> str:
    """Query: requests per second of clients, but for those that clients got wrong."""
    return _rate(REQUESTS, by, window, 'source="client", outcome!="ClientError"', selector)


def _rate(metric: str, by: str, window: str, matchers: str, selector: str) -> str:
    both = ", ".join(part for part in (matchers, selector.strip("{}")) if part)
    return f"sum by ({by}) (rate({metric}{f'{{{both}}}' if both else ''}[{window}]))"


def _by_gpu(expr: str) -> str:
    """The pod that holds a GPU is its label `pod` or `exported_pod`, depending on how the exporter is scraped."""
    for label in ("pod", "namespace"):
        expr = f'label_replace({expr}, "{label}", "$1", "exported_{label}", "(.+)")'
    return f"max by (namespace, pod, Hostname, gpu, GPU_I_ID) ({expr})"


RECORDINGS = (
    *(
        Recording(
            f"{FIRST_TOKEN}:p{percent}",
            quantile(percent, FIRST_TOKEN_SECONDS, VERSION, WINDOW),
            f"Time to the first token, p{percent}.",
        )
        for percent in (50, 95, 99)
    ),
    *(
        Recording(
            f"{OUTPUT_TOKEN}:p{percent}",
            quantile(percent, OUTPUT_TOKEN_SECONDS, VERSION, WINDOW),
            f"Time per output token after the first, p{percent} of the requests.",
        )
        for percent in (50, 95)
    ),
    Recording(
        TOKENS_PER_GPU,
        f"sum by ({VERSION}) (rate({OUTPUT_TOKENS}[{WINDOW}])) / sum by ({VERSION}) (clamp_min({SERVER_GPUS}, 1))",
        "Output tokens per second and GPU; per pod where pods have no GPU.",
    ),
    Recording(
        ERROR_RATE,
        error_rate(VERSION, WINDOW),
        "Percent of clients' requests that ended with an error of the server or broke off; absent without requests.",
    ),
    Recording(
        COMPLETION_RATE,
        completion_rate(VERSION, WINDOW),
        "Percent of generations that ended by themselves or at their token limit; absent without any.",
    ),
    Recording(
        REQUEST_RATE,
        client_requests(VERSION, WINDOW),
        "Requests per second of clients, without those that clients got wrong.",
    ),
    Recording(
        GPU_MEMORY,
        _by_gpu(f"100 * {GPU_MEMORY_USED} / ({GPU_MEMORY_USED} + {GPU_MEMORY_FREE})"),
        "Percent of a GPU's memory that is used, by the pod that holds it. From NVIDIA's DCGM exporter.",
    ),
    Recording(
        GPU_UTILIZATION,
        _by_gpu(GPU_UTILIZED),
        "Percent of the time that a GPU computes, by the pod that holds it. From NVIDIA's DCGM exporter.",
    ),
)
