"""A dashboard as a picture: numbers on axes, lines with gaps, and what there is no data for."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.monitoring.test_panels import DASHBOARD
from tunewright_monitoring.panels import Dashboard, Kind, Panel, Query, Row, Unit
from tunewright_monitoring.picture import Line, Span, draw, legend
from tunewright_monitoring.scale import format_value, ticks

SPAN = Span(start=1767323045.0, end=1767323045.0 + 100, step=1.0)
NAN = math.nan


def line(*values: float, name: str = "guide") -> Line:
    """A line with a value a second from the start."""
    return Line(name, [(SPAN.start + at, value) for at, value in enumerate(values)])


def picture(panel: Panel, *lines: Line) -> tuple[list[str], list[str]]:
    """(texts, paths of the lines) of a dashboard of one panel."""
    dashboard = Dashboard("x", "X", "", (), (Row("Row", (panel,)), Row("Other", (Panel("Left out", "", ()),))))
    root = ElementTree.fromstring(draw(dashboard, {panel: lines}, SPAN))
    paths = [one.get("d", "") for one in root.iter("{http://www.w3.org/2000/svg}path") if one.get("fill") == "none"]
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    return texts, paths


CHART = Panel("Loss", "", (), Unit.NUMBER, width=24)
LAST = Panel("Steps", "", (), Unit.NUMBER, Kind.LAST)


def test_a_chart_has_a_line_a_scale_and_a_name() -> None:
    texts, (path,) = picture(CHART, line(1.0, 2.0, 4.0, name="guide <v1>"))
    assert {"X", "Row", "Loss", "0", "1", "2", "3", "4", "03:04:05", "03:05:45", "guide <v1>"} <= set(texts)
    assert "Left out" not in texts
    assert "Other" not in texts
    points = [tuple(map(float, point.split())) for point in re.findall(r"[\d.]+ [\d.]+", path)]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert path.count("M") == 1


@pytest.mark.parametrize(
    ("values", "runs"),
    [((1.0, 2.0, 3.0), 1), ((1.0, NAN, 3.0), 2), ((NAN, 2.0, NAN), 1), ((1.0, math.inf, 2.0), 2)],
    ids=["no gap", "a gap", "a lone point", "an infinite one"],
)
def test_what_is_no_number_is_a_gap(values: tuple[float, ...], runs: int) -> None:
    _, (path,) = picture(CHART, line(*values))
    assert path.count("M") == runs


def test_a_missing_sample_is_a_gap() -> None:
    _, (path,) = picture(CHART, Line("guide", [(SPAN.start, 1.0), (SPAN.start + 1, 1.0), (SPAN.start + 9, 1.0)]))
    assert path.count("M") == 2


@pytest.mark.parametrize("lines", [(), (line(),), (line(NAN, NAN),)], ids=["no series", "no sample", "no number"])
@pytest.mark.parametrize("panel", [CHART, LAST], ids=["lines", "last value"])
def test_without_data_it_says_so(panel: Panel, lines: tuple[Line, ...]) -> None:
    texts, paths = picture(panel, *lines)
    assert "no data" in texts
    assert paths == []


def test_a_last_value_is_the_newest_number() -> None:
    texts, _ = picture(LAST, line(1.0, 75.0, NAN))
    assert {"75", "guide"} <= set(texts)


def test_a_legend_names_what_its_labels_are() -> None:
    query = Query("x", "{{inference_service}} {{model_version}} p95")
    assert legend(query, {"inference_service": "guide", "model_version": "guide-v2"}) == "guide guide-v2 p95"
    assert legend(Query("x", "{{cause}}"), {}) == "value"


def test_the_page_is_as_high_as_its_rows() -> None:
    heights = [
        float(ElementTree.fromstring(draw(DASHBOARD, {panel: [] for panel in panels}, SPAN)).attrib["height"])
        for panels in ([], list(DASHBOARD.panels))
    ]
    assert heights[0] < heights[1]


@pytest.mark.parametrize(
    ("value", "unit", "want"),
    [
        (0.25, Unit.SECONDS, "250 ms"),
        (0.0123456, Unit.SECONDS, "12.3 ms"),
        (0, Unit.SECONDS, "0 s"),
        (90, Unit.SECONDS, "1.5 min"),
        (86400 * 3, Unit.SECONDS, "3 d"),
        (99.5, Unit.PERCENT, "99.5 %"),
        (0.07, Unit.FRACTION, "7 %"),
        (1234, Unit.PER_SECOND, "1.23 k/s"),
        (0.5, Unit.PER_SECOND, "0.5 /s"),
        (2e-4, Unit.SCIENTIFIC, "2.0e-04"),
        (42, Unit.NUMBER, "42"),
        (4096, Unit.NUMBER, "4.1 k"),
        (7e9, Unit.NUMBER, "7 G"),
        (41 * 2.0**30, Unit.BYTES, "41 GiB"),
        (1536, Unit.BYTES, "1.5 KiB"),
        (0, Unit.BYTES, "0 B"),
    ],
)
def test_a_value_has_three_digits_and_its_unit(value: float, unit: Unit, want: str) -> None:
    assert format_value(value, unit) == want


@given(st.floats(min_value=1e-6, max_value=1e9), st.sampled_from(Unit))
def test_the_marks_of_an_axis_are_few_and_hold_every_value(top: float, unit: Unit) -> None:
    marks = ticks(top, unit)
    assert marks[0] == 0
    assert marks[-1] >= top * (1 - 1e-6)
    assert 2 <= len(marks) <= 6
    assert marks == sorted(marks)


def test_marks_of_a_time_are_round_in_its_unit() -> None:
    assert ticks(340, Unit.SECONDS) == [0, 120, 240, 360]
    assert ticks(0.3, Unit.SECONDS) == pytest.approx([0, 0.1, 0.2, 0.3])
