"""Speed and remaining time from the recent steps. Pure: the clock is an argument."""

from collections import deque

WINDOW = 20
"""Optimizer steps over which speed is averaged."""


class Pace:
    """Tokens per second and seconds to go, over the last WINDOW steps."""

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._steps: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def add(self, seconds: float, tokens: int) -> None:
        """Record a finished step."""
        self._steps.append((seconds, tokens))

    @property
    def tokens_per_second(self) -> float | None:
        """Over all processes; None before the first step."""
        seconds = sum(s for s, _ in self._steps)
        return sum(t for _, t in self._steps) / seconds if seconds > 0 else None

    def eta_seconds(self, step: int) -> float | None:
        """Expected seconds from `step` to the last one; None before the first step."""
        if not self._steps:
            return None
        mean = sum(s for s, _ in self._steps) / len(self._steps)
        return mean * (self.total_steps - step)
