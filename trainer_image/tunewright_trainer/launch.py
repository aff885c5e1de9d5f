"""From a pod to its workers: rendezvous, command line, environment, and the truth about how they ended."""

import ctypes
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tunewright_api.names import ENV_RENDEZVOUS_ADDRESS, ExitCode
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import Rendezvous
from tunewright_trainer.errors import StageError
from tunewright_trainer.rundir import RUN_DIR_ENV, RunDirectory
from tunewright_trainer.startup import STARTED_ENV, process_start
from tunewright_trainer.timeouts import seconds

NODE_RANK_ENV = "JOB_COMPLETION_INDEX"
RENDEZVOUS_TIMEOUT_ENV = "TUNEWRIGHT_RENDEZVOUS_TIMEOUT"
RENDEZVOUS_TIMEOUT = 600.0
"""Seconds to wait for the other pods: the last one may still be pulling the image."""

_PR_SET_PDEATHSIG = 1
_CGROUP_V2 = Path("/sys/fs/cgroup/memory.events")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory/memory.oom_control")


def node_rank(environment: Mapping[str, str]) -> int:
    """Rank of this pod, 0 without an Indexed Job."""
    return int(environment.get(NODE_RANK_ENV, "0"))


def find_rendezvous(rendezvous: Rendezvous, environment: Mapping[str, str]) -> Rendezvous:
    """The rendezvous of this attempt: the operator names the pod with rank 0 in the environment."""
    address = environment.get(ENV_RENDEZVOUS_ADDRESS) or rendezvous.address
    return rendezvous.model_copy(update={"address": address})


def rendezvous_timeout(environment: Mapping[str, str]) -> float:
    """Seconds to wait for the other pods."""
    return seconds(environment, RENDEZVOUS_TIMEOUT_ENV, RENDEZVOUS_TIMEOUT)


def is_distributed(rendezvous: Rendezvous) -> bool:
    """Whether more than one process takes part."""
    return rendezvous.nodes * rendezvous.processes_per_node > 1


def worker_command(rendezvous: Rendezvous, rank: int, config: Path, timeout: float) -> list[str]:
    """The child process of this pod: torchrun, or the worker itself when it is alone.

    torchrun imports torch before it starts a worker that imports it again; a single process has nobody to meet and
    is spared those seconds. The worker is the same in both cases.
    """
    worker = ["-m", "tunewright_trainer.worker", str(config)]
    if not is_distributed(rendezvous):
        return [sys.executable, *worker]
    return [
        *(sys.executable, "-m", "tunewright_trainer.elastic"),
        f"--nnodes={rendezvous.nodes}",
        f"--node-rank={rank}",
        f"--nproc-per-node={rendezvous.processes_per_node}",
        f"--master-addr={rendezvous.address}",
        f"--master-port={rendezvous.port}",
        f"--rdzv-conf=timeout={int(timeout)}",
        "--max-restarts=0",
        "--monitor-interval=0.2",
        *worker,
    ]


def worker_environment(environment: Mapping[str, str], run: Path, threads: int) -> dict[str, str]:
    """Variables of the child: what the user set wins."""
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**defaults, **environment, RUN_DIR_ENV: str(run), STARTED_ENV: str(process_start())}


def available_cpus(affinity: int, cpu_max: str | None) -> int:
    """Cores this container may use: its CPU limit (cgroup v2 `cpu.max`: "quota period"), else its affinity.

    torch would start a thread per core of the node, and the kernel would throttle them all.
    """
    quota, _, period = (cpu_max or "max").strip().partition(" ")
    if quota == "max" or not period:
        return affinity
    return max(1, min(affinity, round(int(quota) / int(period))))


def read_cpu_max() -> str | None:
    """CPU limit of this container in the form of cgroup v2, on either version; None without one."""
    v2 = Path("/sys/fs/cgroup/cpu.max")
    v1 = Path("/sys/fs/cgroup/cpu")
    try:
        if v2.exists():
            return v2.read_text()
        quota = (v1 / "cpu.cfs_quota_us").read_text().strip()
        return None if quota.startswith("-") else f"{quota} {(v1 / 'cpu.cfs_period_us').read_text().strip()}"
    except OSError:
        return None


def wait_for_name(
    host: str,
    timeout: float,
    resolve: Callable[[str], object] = socket.gethostbyname,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until the name of the rank 0 pod resolves: the pods start at different times.

    Raises:
        StageError: PEER_LOST after `timeout` seconds.
    """
    end, pause = clock() + timeout, 0.2
    while True:
        try:
            resolve(host)
            return
        except OSError as error:
            if clock() >= end:
                raise StageError(
                    ExitCode.PEER_LOST,
                    f"the name {host} of the pod with rank 0 did not resolve within {timeout:.0f} s ({error}): is that "
                    "pod scheduled, and does the cluster's DNS work?",
                ) from error
            sleep(pause)
            pause = min(pause * 1.5, 2.0)


def die_with_parent() -> None:
    """Ask the kernel to SIGKILL this process when its parent ends, so that no worker outlives its pod's main
    process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def oom_kills() -> int:
    """Processes of this container that the kernel killed for memory so far."""
    for file in (_CGROUP_V2, _CGROUP_V1):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def judge(
    run: RunDirectory,
    exit_code: int,
    *,
    oom: Callable[[int], StageError] | None,
    stopped: bool,
    node: int,
    processes_per_node: int,
) -> TrainResult:
    """What the pod's exit means.

    torchrun ends with 1 whatever happened, so the workers' own words count first; of those, a lost peer is only an
    echo of another failure. A worker that left no word was killed.

    Args:
        run: Where the workers left their words.
        exit_code: Of the child process.
        oom: Makes the error for a rank that was killed, if the kernel killed for memory; None if it did not.
        stopped: Whether the pod was asked to end.
        node: Rank of this pod.
        processes_per_node: Workers of this pod.

    Raises:
        StageError: For everything but success.
    """
    outcomes = run.outcomes()
    errors = [outcome.error for outcome in outcomes if outcome.error]
    root = next((error for error in errors if error.code is not ExitCode.PEER_LOST), None)
    silent = {rank: code for rank, code in run.deaths().items() if code < 0}
    if exit_code < 0 and not silent and not outcomes:
        silent = {node * processes_per_node: exit_code}
    spoke = {outcome.rank for outcome in outcomes}
    killed = sorted(rank for rank, code in silent.items() if rank not in spoke and code == -signal.SIGKILL)
    crashed = sorted(rank for rank, code in silent.items() if rank not in spoke and code != -signal.SIGTERM)
    if root is not None:
        raise root
    if killed and oom:
        raise oom(killed[0])
    if crashed:
        name = signal.Signals(-silent[crashed[0]]).name
        raise StageError(
            ExitCode.INTERNAL,
            f"rank {crashed[0]} was ended by {name}; the next attempt resumes from the last checkpoint",
            crashed[0],
        )
    if errors:
        raise errors[0]
    if exit_code == 0 and outcomes and outcomes[0].result is not None:
        return outcomes[0].result
    if stopped:
        raise StageError(ExitCode.PREEMPTED, "stopped before the first step: there was nothing to save")
    raise StageError(
        ExitCode.INTERNAL, f"the workers ended with {exit_code} without a word: see the log of this container"
    )
