"""A dashboard and the samples of its queries as one SVG picture, laid out as Grafana does it. Pure."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from tunewright_monitoring.panels import COLUMNS, Dashboard, Kind, Panel, Query, height, place
from tunewright_monitoring.scale import format_value, ticks

# (seconds since 1970, value), in the order of time
Points = Sequence[tuple[float, float]]

_WIDTH = 1200
_MARGIN = 16
_COLUMN = (_WIDTH - 2 * _MARGIN) / COLUMNS
_UNIT = 26  # pixels of a unit of height
_HEADING = 30
_GAP = 8
_LEGEND_LINE = 15
_LEGEND_LINES = 3
_LETTER = 6.1  # mean width of a letter at the size of legends
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#5f6b6d")
_STYLE = (
    "text{font-family:DejaVu Sans,Helvetica,Arial,sans-serif;font-size:11px;fill:#333}"
    ".t{font-size:12px;font-weight:bold}.r{font-size:14px;font-weight:bold;fill:#111}.h{font-size:20px}"
    ".b{font-size:20px;font-weight:bold}.a{font-size:10px;fill:#777}.e{fill:#999}"
)


@dataclass(frozen=True)
class Line:
    """One series of a panel; a sample that is not a number is a gap."""

    name: str
    points: Points


@dataclass(frozen=True)
class Span:
    """The time that the picture shows, and the seconds between two samples."""

    start: float
    end: float
    step: float


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height


def legend(query: Query, labels: Mapping[str, str]) -> str:
    """The query's legend with the labels of a series filled in, as Grafana does it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), query.legend).strip() or "value"


def draw(dashboard: Dashboard, lines: Mapping[Panel, Sequence[Line]], span: Span) -> str:
    """The picture: every panel of `dashboard` that is a key of `lines`; rows without any are left out."""
    body = [_text(_MARGIN, 30, dashboard.title, "r h")]
    top = 44.0
    for row in dashboard.rows:
        panels = [(panel, left, down) for panel, left, down in place(row) if panel in lines]
        if not panels:
            continue
        body.append(_text(_MARGIN, top + 20, row.title, "r"))
        top += _HEADING
        for panel, left, down in panels:
            size = panel.width * _COLUMN - _GAP, panel.height * _UNIT - _GAP
            body += _panel(panel, lines[panel], span, _Box(_MARGIN + left * _COLUMN, top + down * _UNIT, *size))
        top += height(row) * _UNIT
    extent = f'width="{_WIDTH}" height="{top + _MARGIN:.0f}" viewBox="0 0 {_WIDTH} {top + _MARGIN:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {extent}><style>{_STYLE}</style>'
    return "\n".join((head, '<rect width="100%" height="100%" fill="#f4f5f5"/>', *body, "</svg>\n"))


def _panel(panel: Panel, lines: Sequence[Line], span: Span, box: _Box) -> Iterator[str]:
    yield (
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        'rx="3" fill="#fff" stroke="#ddd"/>'
    )
    yield _text(box.left + 10, box.top + 18, panel.title, "t")
    shown = [line for line in lines if any(math.isfinite(value) for _, value in line.points)]
    inner = _Box(box.left + 10, box.top + 26, box.width - 20, box.height - 34)
    if not shown:
        yield _text(box.left + box.width / 2, box.top + box.height / 2, "no data", "e", "middle")
    elif panel.kind is Kind.LAST:
        yield from _last_values(panel, shown, inner)
    else:
        yield from _chart(panel, shown, span, inner)


def _last_values(panel: Panel, lines: Sequence[Line], box: _Box) -> Iterator[str]:
    """The last number of each line, as many as there is room for."""
    for at, line in enumerate(lines[: int(box.height // 28)]):
        y = box.top + 22 + 28 * at
        last = [value for _, value in line.points if math.isfinite(value)][-1]
        text = format_value(last, panel.unit)
        yield _text(box.left, y, text, "b")
        yield _text(box.left + 13 * len(text) + 12, y, _cut(line.name, box.width - 13 * len(text) - 12))


def _chart(panel: Panel, lines: Sequence[Line], span: Span, box: _Box) -> Iterator[str]:
    entries = list(_legend(lines, box))
    below = (max((row for _, row, _, _ in entries), default=0) + 1) * _LEGEND_LINE
    highest = max(value for line in lines for _, value in line.points if math.isfinite(value))
    marks = ticks(highest, panel.unit)
    labels = [format_value(mark, panel.unit) for mark in marks]
    gutter = max(map(len, labels)) * 5.6 + 8
    plot = _Box(box.left + gutter, box.top + 4, box.width - gutter - 6, box.height - below - 26)

    def x(time: float) -> float:
        return plot.left + plot.width * (time - span.start) / (span.end - span.start)

    def y(value: float) -> float:
        return plot.bottom - plot.height * max(value, 0.0) / marks[-1]

    for mark, label in zip(marks, labels, strict=True):
        yield f'<path d="M{plot.left:.1f} {y(mark):.1f}H{plot.right:.1f}" stroke="#e5e5e5"/>'
        yield _text(plot.left - 5, y(mark) + 3.5, label, "a", "end")
    for time, label, anchor in _times(span, plot.width):
        yield _text(x(time), plot.bottom + 15, label, "a", anchor)
    for at, line in enumerate(lines):
        path = " ".join(_path(run, x, y) for run in _runs(line.points, span.step))
        yield f'<path d="{path}" fill="none" stroke="{_color(at)}" stroke-width="1.8" stroke-linecap="round"/>'
    for left, row, color, name in entries:
        base = plot.bottom + 34 + row * _LEGEND_LINE
        yield f'<rect x="{left:.1f}" y="{base - 6:.1f}" width="12" height="3" fill="{color}"/>'
        yield _text(left + 16, base, name)


def _legend(lines: Sequence[Line], box: _Box) -> Iterator[tuple[float, int, str, str]]:
    """(left, row, color, name) of each entry that has room; the last one says how many have none."""
    left, row = box.left, 0
    for at, line in enumerate(lines):
        name = _cut(line.name, box.width - 24)
        width = 24 + len(name) * _LETTER
        if left > box.left and left + width > box.right:
            left, row = box.left, row + 1
        if row == _LEGEND_LINES:
            yield left, row - 1, "none", ""
            return
        yield left, row, _color(at), name
        left += width


def _runs(points: Points, step: float) -> Iterator[list[tuple[float, float]]]:
    """The points in runs without a gap."""
    run: list[tuple[float, float]] = []
    for time, value in points:
        gap = run and time - run[-1][0] > 1.5 * step
        if run and (gap or not math.isfinite(value)):
            yield run
            run = []
        if math.isfinite(value):
            run.append((time, value))
    if run:
        yield run


def _path(run: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points = [f"{x(time):.1f} {y(value):.1f}" for time, value in run]
    # A lone point is a line of no length, which its round caps make visible.
    return f"M{points[0]}L{' '.join(points[1:] or points)}"


def _times(span: Span, width: float) -> Iterator[tuple[float, str, str]]:
    """(time, label, anchor) of the ticks of the time axis."""
    count = max(2, int(width // 90))
    form = "%H:%M:%S" if span.end - span.start < 1800 else "%H:%M"
    for at in range(count):
        time = span.start + (span.end - span.start) * at / (count - 1)
        anchor = "start" if at == 0 else "end" if at == count - 1 else "middle"
        yield time, datetime.fromtimestamp(time, UTC).strftime(form), anchor


def _color(at: int) -> str:
    return _COLORS[at % len(_COLORS)]


def _cut(text: str, width: float) -> str:
    room = max(1, int(width / _LETTER))
    return text if len(text) <= room else text[: room - 1] + "…"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    placed = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}{placed}>{escape(text)}</text>'
