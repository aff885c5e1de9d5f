"""Two trainings in one process that take turns step by step, so that whatever else the machine does slows both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

WARM_UP = 2
"""Turns that do not count: the first step reserves memory and starts threads."""


class Turns:
    """Who may compute. Each side runs in a thread of its own and holds the turn from `begin` or a step's end to the
    end of its next step."""

    def __init__(self, sides: int) -> None:
        self.seconds: list[list[float]] = [[] for _ in range(sides)]
        self._gates = [threading.Semaphore(0) for _ in range(sides)]
        self._left = [True] * sides
        self._since = 0.0

    def run(self, *sides: Callable[[], object]) -> None:
        """Run all sides to their ends; each has to call `end_step` with its number after each of its steps.

        Raises:
            Exception: What a side raised.
        """
        with ThreadPoolExecutor(len(sides)) as pool:
            futures = [pool.submit(self._side, number, run) for number, run in enumerate(sides)]
            self._gates[0].release()
        for future in futures:
            future.result()

    def end_step(self, side: int) -> None:
        """The step of this side is over: note its time, and wait until the others have done one."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[side].append(time.perf_counter() - self._since)
        self._pass_on(side)
        self._take(side)

    def hook(self, side: int) -> Callable[[object], None]:
        """`end_step` of this side as a hook of our recipe."""
        return lambda _: self.end_step(side)

    def speed(self, side: int, tokens: Sequence[int]) -> float:
        """Tokens per second of a side, given those of each of its steps; of the turns that count."""
        return sum(tokens[WARM_UP:]) / sum(self.seconds[side][WARM_UP:])

    def _side(self, side: int, run: Callable[[], object]) -> None:
        self._take(side)
        try:
            run()
        finally:
            self._left[side] = False
            self._pass_on(side)

    def _take(self, side: int) -> None:
        self._gates[side].acquire()
        self._since = time.perf_counter()

    def _pass_on(self, side: int) -> None:
        following = [(side + turn) % len(self._gates) for turn in range(1, len(self._gates) + 1)]
        receiver = next((other for other in following if self._left[other]), None)
        if receiver is not None:
            self._gates[receiver].release()
