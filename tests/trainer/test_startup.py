"""The way to the first step, part by part."""

import os
import subprocess
import sys

import pytest

from tunewright_trainer.startup import STARTED_ENV, Startup, clock


def test_parts_follow_each_other_from_the_start_of_the_process_to_the_first_step() -> None:
    """What the hook tells at the first step is complete, and it tells nothing again."""
    now = [10.0]
    startup = Startup(started=4.0, now=lambda: now[0])
    startup.end("launch")
    now[0] = 13.0
    startup.end("imports")
    told: list[dict[str, float]] = []
    enter = startup.report(lambda parts: told.append(dict(parts)))
    now[0] = 15.0
    for phase in ("batch", "agree", "step", "batch", "agree", "step"):
        enter(phase, 0)
    assert told == [{"launch": 6.0, "imports": 3.0, "batch": 2.0}]


def test_a_worker_counts_from_the_start_of_the_pod_s_main_process() -> None:
    """The main process says when it started."""
    startup = Startup.from_environment({STARTED_ENV: str(clock() - 100)})
    startup.end("launch")
    assert startup.parts["launch"] == pytest.approx(100, abs=60)


def test_the_start_of_a_process_is_told_by_the_kernel() -> None:
    """To a tick of 10 ms."""
    before = clock()
    ask = "from tunewright_trainer.startup import process_start; print(process_start())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, check=True).stdout
    started = float(told)
    assert before - 0.02 <= started <= clock()
