"""The queries of a check: as text, and evaluated by promtool where it is built."""

import subprocess
from pathlib import Path

import pytest
import yaml

from e2e.cluster.build import binary
from tunewright_api.rollout import RolloutMetric
from tunewright_operator.policies.promql import REQUESTS, build_queries

QUERIES = build_queries("team", "guide", 60)
ME = 'namespace="team",inference_service="guide"'


def test_one_query_for_the_requests_and_one_for_each_metric() -> None:
    assert QUERIES.keys() == {REQUESTS, *RolloutMetric}


def test_only_answers_to_clients_of_this_service_are_counted() -> None:
    assert QUERIES[REQUESTS] == (
        f'sum by (revision) (increase(tunewright_requests_total{{{ME},source="client",'
        'outcome!~"ClientError|ClientClosed"}[60s]))'
    )


def test_the_first_token_is_a_quantile_over_all_pods_of_a_revision_in_milliseconds() -> None:
    assert QUERIES[RolloutMetric.TTFT_P95] == (
        "1000 * histogram_quantile(0.95, sum by (revision, le) "
        f"(rate(vllm:time_to_first_token_seconds_bucket{{{ME}}}[60s])))"
    )


# Per ten seconds: revision a answers 9 requests well, b answers 9 well and 1 with an error.
SERIES = {
    'tunewright_requests_total{source="client",outcome="Completed",revision="a"': "0+9x12",
    'tunewright_requests_total{source="client",outcome="ServerError",revision="a"': "0x12",
    'tunewright_requests_total{source="client",outcome="Completed",revision="b"': "0+9x12",
    'tunewright_requests_total{source="client",outcome="Broken",revision="b"': "0+1x12",
    'tunewright_requests_total{source="client",outcome="ClientError",revision="b"': "0+50x12",
    'tunewright_requests_total{source="client",outcome="ClientClosed",revision="b"': "0+50x12",
    'tunewright_requests_total{source="probe",outcome="ServerError",revision="b"': "0+50x12",
    'vllm:request_success_total{finished_reason="stop",revision="a"': "0+6x12",
    'vllm:request_success_total{finished_reason="length",revision="a"': "0+2x12",
    'vllm:request_success_total{finished_reason="abort",revision="a"': "0+2x12",
    'vllm:request_success_total{finished_reason="abort",revision="b"': "0+2x12",
    'vllm:time_to_first_token_seconds_bucket{le="0.1",revision="a"': "0x12",
    'vllm:time_to_first_token_seconds_bucket{le="0.5",revision="a"': "0+5x12",
    'vllm:time_to_first_token_seconds_bucket{le="1",revision="a"': "0+10x12",
    'vllm:time_to_first_token_seconds_bucket{le="+Inf",revision="a"': "0+10x12",
    'vllm:request_time_per_output_token_seconds_bucket{le="0.02",revision="b"': "0+20x12",
    'vllm:request_time_per_output_token_seconds_bucket{le="+Inf",revision="b"': "0+20x12",
}
VALUES = {
    REQUESTS: {"a": 54, "b": 60},
    RolloutMetric.ERROR_RATE: {"a": 0, "b": 10},
    RolloutMetric.COMPLETION_RATE: {"a": 80, "b": 0},
    RolloutMetric.TTFT_P50: {"a": 500},
    RolloutMetric.TTFT_P95: {"a": 950},
    RolloutMetric.TPOT_P95: {"b": 19},
}


def test_prometheus_answers_one_sample_for_each_revision(tmp_path: Path) -> None:
    promtool = binary("promtool")
    if not promtool.exists():
        pytest.skip("promtool is not built: `python -m e2e.cluster build` does it")
    case = {
        "interval": "10s",
        "input_series": [
            {"series": f"{series},{me}}}", "values": values}
            for me in (ME, 'namespace="team",inference_service="another"')
            for series, values in SERIES.items()
        ],
        "promql_expr_test": [
            {
                "expr": QUERIES[name],
                "eval_time": "110s",
                "exp_samples": [{"labels": f'{{revision="{name}"}}', "value": value} for name, value in values.items()],
            }
            for name, values in VALUES.items()
        ],
    }
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "10s", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
