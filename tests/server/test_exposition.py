"""Labels of a pod on every sample of vLLM's metrics."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tunewright_api.server_config import ServerIdentity
from tunewright_server.exposition import add_labels, identity_labels, render_own

IDENTITY = ServerIdentity(namespace="shop", service="guide", version="guide-v1", revision="0a1b2c3d")
LABELS = identity_labels(IDENTITY)
OURS = 'namespace="shop",inference_service="guide",model_version="guide-v1",revision="0a1b2c3d"'

LINES = [
    pytest.param("up 1", f"up{{{OURS}}} 1", id="no labels"),
    pytest.param("up\t1 1700000000000", f"up{{{OURS}}} 1 1700000000000", id="a timestamp"),
    pytest.param("up{} 1", f"up{{{OURS}}} 1", id="no labels in braces"),
    pytest.param('  up { a="b" } NaN', f'up{{{OURS},a="b" }} NaN', id="blanks"),
    pytest.param('vllm:up{a="b"} 2.0', f'vllm:up{{{OURS},a="b"}} 2.0', id="labels"),
    pytest.param('up{a="b",} 1', f'up{{{OURS},a="b",}} 1', id="a comma at the end"),
    pytest.param('up{a="}{ \\" \\\\ \\n #"} 1', f'up{{{OURS},a="}}{{ \\" \\\\ \\n #"}} 1', id="escapes and braces"),
    pytest.param(
        'b_bucket{le="+Inf"} 9 # {trace="x"} 0.5 1.7e9',
        f'b_bucket{{{OURS},le="+Inf"}} 9 # {{trace="x"}} 0.5 1.7e9',
        id="an exemplar",
    ),
    pytest.param("b_bucket 9 # {} 1", f"b_bucket{{{OURS}}} 9 # {{}} 1", id="an exemplar without labels"),
    pytest.param(
        'up{revision="7",a="revision=\\"8\\"",namespace="x"} 1',
        f'up{{{OURS},exported_revision="7",a="revision=\\"8\\"",exported_namespace="x"}} 1',
        id="a label that has one of our names",
    ),
    pytest.param("# HELP up Whether namespace is up.", "# HELP up Whether namespace is up.", id="help"),
    pytest.param("# TYPE up gauge", "# TYPE up gauge", id="a type"),
    pytest.param("#", "#", id="a comment"),
    pytest.param("", "", id="an empty line"),
    pytest.param("a 1\nb 2\n", f"a{{{OURS}}} 1\nb{{{OURS}}} 2\n", id="two lines"),
]


@pytest.mark.parametrize(("line", "want"), LINES)
def test_lines(line: str, want: str) -> None:
    assert add_labels(line, LABELS) == want


def test_values_are_escaped() -> None:
    assert add_labels("up 1", {"a": 'b"\\\n'}) == 'up{a="b\\"\\\\\\n"} 1'


def test_our_own_metrics() -> None:
    assert render_own(LABELS, ready=True, gpus=4).splitlines() == [
        "# HELP tunewright_server_ready Whether requests may be sent to this pod.",
        "# TYPE tunewright_server_ready gauge",
        f"tunewright_server_ready{{{OURS}}} 1",
        "# HELP tunewright_server_gpus GPUs of this pod.",
        "# TYPE tunewright_server_gpus gauge",
        f"tunewright_server_gpus{{{OURS}}} 4",
    ]


Fill = Callable[[CollectorRegistry], object]
NAMES = ("namespace", "revision", "model_version", "engine", "le_", "namespace_", "a")


@st.composite
def registries(draw: st.DrawFn) -> CollectorRegistry:
    """A registry with counters, gauges and histograms whose labels hold any text."""
    registry = CollectorRegistry()
    for number, kind in enumerate(draw(st.lists(st.sampled_from([Counter, Gauge, Histogram]), max_size=4))):
        labels = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
        metric = kind(f"m{number}", draw(st.text()), labels, registry=registry)
        child = metric.labels(*(draw(st.text()) for _ in labels)) if labels else metric
        value = draw(st.floats(0, 1e9, allow_nan=False))
        if isinstance(child, Counter):
            child.inc(value, {"trace": draw(st.text("ab", max_size=3))})
        elif isinstance(child, Gauge):
            child.set(value)
        else:
            child.observe(value)
    return registry


@settings(deadline=None)
@given(registries())
def test_the_same_samples_with_our_labels(registry: CollectorRegistry) -> None:
    for generate, read in ((generate_latest, parse), (generate_openmetrics, parse_openmetrics)):
        before = generate(registry).decode()
        seen = [s for family in read(add_labels(before, LABELS)) for s in family.samples]
        given = [s for family in read(before) for s in family.samples]
        want = [
            s._replace(labels={f"exported_{k}" if k in LABELS else k: v for k, v in s.labels.items()} | LABELS)
            for s in given
        ]
        assert seen == want
