"""train: the container's main process. It starts the workers, passes SIGTERM on, and says how they ended."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import FrameType

from tunewright_api.names import Stage
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import Rendezvous, TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.errors import PreemptedError, not_yet
from tunewright_trainer.guards.nccl import observe_hardware, tune
from tunewright_trainer.guards.oom import measure_container, out_of_memory
from tunewright_trainer.launch import (
    available_cpus,
    die_with_parent,
    find_rendezvous,
    is_distributed,
    judge,
    node_rank,
    oom_kills,
    read_cpu_max,
    rendezvous_timeout,
    wait_for_name,
    worker_command,
    worker_environment,
)
from tunewright_trainer.layout import Layout
from tunewright_trainer.rundir import RunDirectory

START_GRACE = 5.0
"""Seconds after SIGTERM in which a worker may still reach its training loop; before it there is nothing to save."""


def run(config: TrainerConfig, path: Path) -> TrainResult:
    """Train in child processes.

    Raises:
        StageError: Whatever a worker ended with; PEER_LOST, OUT_OF_MEMORY or INTERNAL when one died without a word.
    """
    layout = Layout(config)
    if layout.train_result.is_file():
        log.info("already trained: nothing to do")
        return TrainResult.model_validate_json(layout.train_result.read_bytes())
    if not layout.train_records.is_file():
        raise not_yet(layout.train_records, Stage.PREPARE)
    with tempfile.TemporaryDirectory(prefix="tunewright-") as directory:
        return _supervise(config, path, RunDirectory(Path(directory)))


def _supervise(config: TrainerConfig, path: Path, run_directory: RunDirectory) -> TrainResult:
    rendezvous = find_rendezvous(config.rendezvous, os.environ)
    rank, timeout = node_rank(os.environ), rendezvous_timeout(os.environ)
    stopped_at: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not stopped_at:
            stopped_at.append(time.monotonic())
        run_directory.request_stop()

    def nap(seconds: float) -> None:
        if stopped_at:
            raise PreemptedError("stopped before the first step: there was nothing to save")
        time.sleep(seconds)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        if is_distributed(rendezvous):
            wait_for_name(rendezvous.address, timeout, sleep=nap)
        cores = available_cpus(len(os.sched_getaffinity(0)), read_cpu_max())
        threads = max(1, cores // rendezvous.processes_per_node)
        oom_before = oom_kills()
        log.info("starting workers", node=rank, nodes=rendezvous.nodes, threads=threads)
        child = subprocess.Popen(
            worker_command(rendezvous, rank, path, timeout),
            env=worker_environment(_environment(rendezvous), run_directory.path, threads),
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has no threads
        )
        exit_code = _wait(child, run_directory, stopped_at, rendezvous.processes_per_node)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return judge(
        run_directory,
        exit_code,
        oom=(lambda killed: out_of_memory(config, measure_container(), killed)) if oom_kills() > oom_before else None,
        stopped=bool(stopped_at),
        node=rank,
        processes_per_node=rendezvous.processes_per_node,
    )


def _environment(rendezvous: Rendezvous) -> dict[str, str]:
    """The environment of the workers, with what NCCL needs; why is in the log."""
    tuned = tune(os.environ, observe_hardware(rendezvous.nodes))
    for name, setting in tuned.items():
        log.info(f"{name}={setting.value}: {setting.reason}")
    return {**os.environ, **{name: setting.value for name, setting in tuned.items()}}


def _wait(
    child: "subprocess.Popen[bytes]", run_directory: RunDirectory, stopped_at: list[float], processes: int
) -> int:
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            late = bool(stopped_at) and time.monotonic() - stopped_at[0] > START_GRACE
            if late and run_directory.started() < processes:
                child.kill()
                child.wait()
                return 1
