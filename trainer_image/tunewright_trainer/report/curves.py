"""Curves of a run: a PNG of the loss, and panels as SVG for the page."""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from tunewright_trainer.steps import EVAL_LOSS, StepRecord

MAX_POINTS = 500
"""Points of a curve; of more steps each point is a mean of neighbours."""
SMOOTHING = 0.9
"""Weight of the past in the smoothed loss, as TensorBoard's slider has it."""

Points = tuple[list[float], list[float]]

_RAW, _SMOOTH, _EVALUATED = "#9ecae1", "#08519c", "#d94801"
_PANELS: tuple[tuple[str, Callable[[StepRecord], float]], ...] = (
    ("learning rate", lambda record: record.learning_rate),
    ("gradient norm before clipping", lambda record: record.grad_norm),
    ("tokens per second", lambda record: record.tokens_per_second),
    ("memory of rank 0, GiB", lambda record: record.memory_bytes / 2**30),
    ("share of the step spent waiting for data", lambda record: record.data_wait_share),
)


def loss_png(records: Sequence[StepRecord]) -> bytes:
    """Loss over optimizer steps, with the evaluation loss where it was taken."""
    figure, axes = _figure(1, (8.0, 4.5))
    _draw_loss(axes[0], records)
    return _render(figure, "png")


def curves_svg(records: Sequence[StepRecord]) -> str:
    """Loss, learning rate, gradient norm, speed, memory and waiting over optimizer steps: an <svg> element."""
    figure, axes = _figure(1 + len(_PANELS), (11.0, 6.0))
    _draw_loss(axes[0], records)
    steps = [record.step for record in records]
    for panel, (title, read) in zip(axes[1:], _PANELS, strict=True):
        panel.plot(*thin(steps, [read(record) for record in records]), color=_SMOOTH, linewidth=1.2)
        panel.set_title(title, fontsize=10)
    text = _render(figure, "svg").decode()
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def thin(xs: Sequence[float], ys: Sequence[float], limit: int = MAX_POINTS) -> Points:
    """At most `limit` points, each the mean of as many finite neighbours; the order of the first axis is kept."""
    finite = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    buckets = [finite[start : start + size] for start in range(0, len(finite), size)]
    return (
        [sum(x for x, _ in bucket) / len(bucket) for bucket in buckets],
        [sum(y for _, y in bucket) / len(bucket) for bucket in buckets],
    )


def smooth(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving average, corrected for its start (Kingma and Ba 2015, section 3)."""
    smoothed, average, scale = [], 0.0, 1.0
    for value in values:
        average = weight * average + (1 - weight) * value
        scale *= weight
        smoothed.append(average / (1 - scale))
    return smoothed


def _draw_loss(axes: Any, records: Sequence[StepRecord]) -> None:
    finite = [record for record in records if math.isfinite(record.loss)]
    steps, losses = [record.step for record in finite], [record.loss for record in finite]
    axes.plot(*thin(steps, losses), color=_RAW, linewidth=1.0, label="each step")
    axes.plot(*thin(steps, smooth(losses)), color=_SMOOTH, linewidth=1.6, label="smoothed")
    evaluated = [(r.step, r.figures[EVAL_LOSS]) for r in records if math.isfinite(r.figures.get(EVAL_LOSS, math.nan))]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), color=_EVALUATED, marker="o", markersize=4, label="held-out records")
    axes.set_title("loss", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _figure(panels: int, inches: tuple[float, float]) -> tuple[Any, list[Any]]:
    # The object interface draws with Agg and keeps no global state; pyplot would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    columns = math.ceil(math.sqrt(panels))
    axes = [figure.add_subplot(math.ceil(panels / columns), columns, at + 1) for at in range(panels)]
    for panel in axes:
        panel.set_xlabel("optimizer step", fontsize=8)
        panel.tick_params(labelsize=8)
        # A learning rate's zeros would not fit beside the axis.
        panel.ticklabel_format(axis="y", scilimits=(-3, 5))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _render(figure: Any, kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # Without a date and with a fixed salt of its ids the same steps give the same bytes; text stays text.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tunewright"}):
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
    return buffer.getvalue()
