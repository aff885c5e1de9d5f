"""Warn when memory grows with every step. Pure but for the log."""

from collections import deque
from collections.abc import Sequence
from itertools import combinations
from statistics import median

from tunewright_trainer import log
from tunewright_trainer.steps import StepRecord

WARM_UP = 16
"""Steps in which caches, buffers and optimizer states are still made."""

WINDOW = 32
"""Measurements that a trend is judged by: a window is this many steps, then twice as many, and so on."""

CERTAIN = 0.9
"""Share of pairs of measurements that must have grown."""

SMALLEST = 0.005
"""Growth over a window, as a share of what is held, below which nothing is said."""


def growth(points: Sequence[tuple[int, int]]) -> float:
    """Bytes per step, 0 unless memory really grows.

    The median of the slopes of all pairs (Theil 1950, Sen 1968) does not heed a few outliers, such as a longer batch;
    and nearly all pairs must have grown, so that a single jump to a higher level is no trend.

    Args:
        points: (step, bytes held), by step.
    """
    slopes = [(later - before) / (last - first) for (first, before), (last, later) in combinations(points, 2)]
    if not slopes or sum(slope > 0 for slope in slopes) < CERTAIN * len(slopes):
        return 0.0
    return median(slopes)


class LeakGuard:
    """Looks at the memory of this process, ever more rarely: windows double, so that a long run stays cheap."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._stride = 1
        self._points: deque[tuple[int, int]] = deque()

    def on_step(self, record: StepRecord) -> None:
        """Look at a finished step."""
        if self._first is None:
            self._first = record.step + WARM_UP
        since = record.step - self._first
        if since < 0 or since % self._stride:
            return
        self._points.append((record.step, record.memory_bytes))
        if len(self._points) < WINDOW:
            return
        self._judge(record)
        self._points = deque(point for index, point in enumerate(self._points) if index % 2 == 0)
        self._stride *= 2

    def _judge(self, record: StepRecord) -> None:
        per_step = growth(self._points)
        steps = self._points[-1][0] - self._points[0][0]
        if per_step * steps < SMALLEST * record.memory_bytes:
            return
        left = record.total_steps - record.step
        log.warning(
            f"memory grows by {per_step / 2**20:.2f} MiB per step: the last step would hold "
            f"{(record.memory_bytes + per_step * left) / 2**30:.1f} GiB; a checkpoint and a restart free it",
            growthBytesPerStep=round(per_step),
            memoryBytes=record.memory_bytes,
            steps=steps,
        )
