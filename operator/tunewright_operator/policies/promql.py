"""What a check asks Prometheus: one round of instant queries, each with one sample per revision.

The window is a range in each query, so the two revisions are compared over the same seconds. `increase` and `rate`
extrapolate from the samples in the window, and need two of them.
"""

from tunewright_api.names import METRIC_LABEL_NAMESPACE, METRIC_LABEL_REVISION, METRIC_LABEL_SERVICE
from tunewright_api.rollout import RolloutMetric

REQUESTS = "Requests"

_BY = f"sum by ({METRIC_LABEL_REVISION})"
_FAILED = 'outcome=~"ServerError|Broken"'
_COUNTED = 'outcome!~"ClientError|ClientClosed"'
_ENDED_WELL = 'finished_reason=~"stop|length"'


def build_queries(namespace: str, service: str, window_seconds: int) -> dict[str, str]:
    """PromQL by name: REQUESTS, and every RolloutMetric in percent or milliseconds.

    A ratio or a quantile of nothing is NaN, which is no value. Left out are client errors, which are the client's, and
    requests that the client gave up: whether they would have ended well is not known, so they are no evidence of it.
    """

    def select(metric: str, *matchers: str) -> str:
        labels = (f'{METRIC_LABEL_NAMESPACE}="{namespace}"', f'{METRIC_LABEL_SERVICE}="{service}"', *matchers)
        return f"{metric}{{{','.join(labels)}}}[{window_seconds}s]"

    def increase(metric: str, *matchers: str) -> str:
        return f"{_BY} (increase({select(metric, *matchers)}))"

    def percent(part: str, whole: str) -> str:
        """100 * part / whole; a part that has no series yet is zero of the whole."""
        return f"100 * ({part} or 0 * {whole}) / {whole}"

    def quantile(fraction: float, histogram: str) -> str:
        rates = f"sum by ({METRIC_LABEL_REVISION}, le) (rate({select(f'{histogram}_bucket')}))"
        return f"1000 * histogram_quantile({fraction}, {rates})"

    def requests(*matchers: str) -> str:
        return increase("tunewright_requests_total", 'source="client"', *matchers)

    answers = "vllm:request_success_total"
    first_token, next_token = "vllm:time_to_first_token_seconds", "vllm:request_time_per_output_token_seconds"
    return {
        REQUESTS: requests(_COUNTED),
        RolloutMetric.ERROR_RATE: percent(requests(_FAILED), requests(_COUNTED)),
        RolloutMetric.COMPLETION_RATE: percent(increase(answers, _ENDED_WELL), increase(answers)),
        RolloutMetric.TTFT_P50: quantile(0.5, first_token),
        RolloutMetric.TTFT_P95: quantile(0.95, first_token),
        RolloutMetric.TPOT_P95: quantile(0.95, next_token),
    }
