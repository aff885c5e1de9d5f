"""Before the first step: do the collectives work, between all processes, and how fast?"""

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.errors import StageError
from tunewright_trainer.processes import Processes, collective_timeout

SHARE = 0.5
"""Of the collective timeout, for all to meet: this test knows who is missing, so it comes before the watchdog."""

ELEMENTS = 1 << 22
"""Of the tensors that are timed: 16 MiB in fp32."""


def check_collectives(processes: Processes, timeout: float | None = None) -> dict[str, float]:
    """Meet, reduce and broadcast known values on the device.

    Returns:
        Seconds by operation; empty for a process that is alone.

    Raises:
        StageError: PEER_LOST naming the ranks that did not come, GPU_UNUSABLE naming those whose values are wrong.
    """
    if processes.world_size == 1:
        return {}
    seconds = {"meet": _timed(lambda: _meet(processes, timeout or SHARE * collective_timeout()))}
    once = torch.zeros(processes.world_size, device=processes.device)
    dist.all_reduce(once)  # makes the communicator
    seconds["allReduce"] = _timed(lambda: _reduce(processes))
    seconds["broadcast"] = _timed(lambda: _broadcast(processes))
    gigabytes = ELEMENTS * 4 / 1e9
    log.info(
        "collectives work",
        processes=processes.world_size,
        backend=dist.get_backend(),
        **{name: round(duration, 4) for name, duration in seconds.items()},
        allReduceGigabytesPerSecond=round(gigabytes / seconds["allReduce"], 2),
    )
    return seconds


def wrong_ranks(received: list[float], expected: list[float]) -> list[int]:
    """Ranks whose element differs: each rank wrote its own."""
    return [rank for rank, (got, want) in enumerate(zip(received, expected, strict=True)) if got != want]


def _timed(operation: object) -> float:
    assert callable(operation)
    started = time.perf_counter()
    operation()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _meet(processes: Processes, timeout: float) -> None:
    try:
        dist.monitored_barrier(processes.control, timedelta(seconds=timeout), wait_all_ranks=True)
    except RuntimeError as error:
        raise StageError(
            ExitCode.PEER_LOST,
            f"not all {processes.world_size} processes came to the collective test within {timeout:.0f} s "
            f"({str(error).splitlines()[0][:300]}): look at the pods of those ranks",
        ) from error


def _reduce(processes: Processes) -> None:
    """Each rank writes rank + 1 at its own place of a large tensor; the sum must have all of them."""
    size = processes.world_size
    values = torch.zeros(max(ELEMENTS, size), device=processes.device)
    values[processes.rank] = processes.rank + 1
    dist.all_reduce(values)
    wrong = wrong_ranks(values[:size].tolist(), [float(rank + 1) for rank in range(size)])
    _agree(processes, "all-reduce", wrong, bool(values[size:].any()))


def _broadcast(processes: Processes) -> None:
    """Rank 0 sends a known pattern."""
    pattern = torch.arange(ELEMENTS, dtype=torch.float32, device=processes.device) % 1009
    values = pattern.clone() if processes.rank == 0 else torch.zeros_like(pattern)
    dist.broadcast(values, src=0)
    differs = not torch.equal(values, pattern)
    _agree(processes, "broadcast", [processes.rank] if differs else [], differs)


def _agree(processes: Processes, what: str, wrong: list[int], differs: bool) -> None:
    """End on all ranks if any of them saw wrong values; the numbers travel on the CPU."""
    votes = processes.total([int(rank in wrong) for rank in range(processes.world_size)] + [int(differs)])
    named = [rank for rank, count in enumerate(votes[:-1]) if count]
    if named or votes[-1]:
        who = f"rank {', '.join(map(str, named))}" if named else "an unknown rank"
        raise StageError(
            ExitCode.GPU_UNUSABLE,
            f"the test {what} gave wrong values for {who}: its GPU or network is broken; the next attempt may run on "
            "other nodes, or cordon that one",
            named[0] if named else None,
        )
