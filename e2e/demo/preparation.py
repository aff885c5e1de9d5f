"""Cluster and images, made side by side: each as a child process whose lines are shown as they come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import IO

from rich.console import Console

from e2e.demo.quickstart import DemoError


def run_side_by_side(console: Console, commands: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Run each name's commands (arguments of `python -m`) in order, the names at the same time.

    Lines are shown with their name in front. When one fails the others are stopped, and DemoError names it.
    """
    stop = threading.Event()
    lanes = [_Lane(name, steps, console, stop) for name, steps in commands.items()]
    with ThreadPoolExecutor(max_workers=max(len(lanes), 1)) as pool:
        running = [pool.submit(lane.run) for lane in lanes]
        try:
            for done in as_completed(running):
                done.result()
        finally:
            stop.set()
            for lane in lanes:
                lane.kill()


class _Lane:
    """One name's commands, one after the other."""

    def __init__(self, name: str, steps: Sequence[Sequence[str]], console: Console, stop: threading.Event) -> None:
        self._name = name
        self._steps = steps
        self._console = console
        self._stop = stop
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Run the commands; DemoError when one fails."""
        for step in self._steps:
            if self._stop.is_set():
                return
            # A session of its own, so that what a command starts ends with it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", *step],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            last = self._show(self._process.stdout)
            if code := self._process.wait():
                raise DemoError(f"`python -m {' '.join(step)}` ended with {code}: {last}")

    def kill(self) -> None:
        """Stop what still runs; a finished lane does not notice."""
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _show(self, lines: IO[str]) -> str:
        last = ""
        for line in lines:
            if text := line.rstrip():
                last = text
                self._console.print(f"[dim]{self._name:>8} │[/dim] {text}", highlight=False)
        return last
