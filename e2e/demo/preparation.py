"""Cluster and images, made side by side: each as a child process whose lines are shown as they come."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from rich.console import Console

from e2e.demo.quickstart import DemoError


def run_side_by_side(console: Console, commands: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Run each name's commands (arguments of `python -m`) in order, the names at the same time.

    Lines are shown with their name in front. When one fails the others are stopped, and DemoError names it.
    """
    lanes = {name: _Lane(name, steps, console) for name, steps in commands.items()}
    for lane in lanes.values():
        lane.start()
    try:
        for lane in lanes.values():
            lane.join()
            if lane.failure:
                raise DemoError(lane.failure)
    finally:
        for lane in lanes.values():
            lane.stop()


class _Lane(threading.Thread):
    """One name's commands, one after the other."""

    def __init__(self, name: str, steps: Sequence[Sequence[str]], console: Console) -> None:
        super().__init__(name=name, daemon=True)
        self.failure = ""
        self._steps = steps
        self._console = console
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        for step in self._steps:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *step], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert self._process.stdout is not None
            last = self._show(self._process.stdout)
            if code := self._process.wait():
                self.failure = f"`python -m {' '.join(step)}` ended with {code}: {last}"
                return

    def stop(self) -> None:
        """Stop what still runs; a finished lane does not notice."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _show(self, lines: IO[str]) -> str:
        last = ""
        for line in lines:
            if text := line.rstrip():
                last = text
                self._console.print(f"[dim]{self.name:>8} │[/dim] {text}", highlight=False)
        return last
