"""Out of memory: how much was in use, and the three settings that would help most, from the memory estimate."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.estimate import SHOWN, describe, estimate_run, gib

_CGROUP = Path("/sys/fs/cgroup")
_PEAK = (_CGROUP / "memory.peak", _CGROUP / "memory/memory.max_usage_in_bytes")
_LIMIT = (_CGROUP / "memory.max", _CGROUP / "memory/memory.limit_in_bytes")
_NO_LIMIT = 1 << 60

_GENERAL = (
    "hyperparameters.gradientCheckpointing: true",
    "a smaller microBatchSize with more gradientAccumulationSteps",
    "a smaller sequenceLength",
)


@dataclass(frozen=True)
class Usage:
    """Memory that was measured.

    Attributes:
        where: `the GPU` or `the container`.
        peak: The most bytes in use, None if nobody counted.
        limit: Bytes there are, None without a limit.
        gpu: Whether it is a GPU's.
    """

    where: str
    peak: int | None
    limit: int | None
    gpu: bool

    def describe(self) -> str:
        """`78.1 GiB of 79.2 GiB of the GPU were in use`."""
        if self.peak is None:
            return f"the memory of {self.where} was not enough"
        of = f" of {gib(self.limit)}" if self.limit else ""
        return f"{gib(self.peak)}{of} of {self.where} were in use"


def measure_process() -> Usage:
    """What this process used: of its GPU, if torch has one, or of the machine."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        limit = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return Usage("the GPU", torch.cuda.max_memory_reserved(), limit, gpu=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Usage("the container", peak, measure_container().limit, gpu=False)


def measure_container() -> Usage:
    """What all processes of this container used, and its limit, as the kernel counts (cgroup v2 or v1)."""
    limit = _read(_LIMIT)
    return Usage("the container", _read(_PEAK), None if limit is None or limit >= _NO_LIMIT else limit, gpu=False)


def out_of_memory(config: TrainerConfig, usage: Usage, rank: int | None = None) -> StageError:
    """The error with what would help."""
    who = "" if rank is None else f" on rank {rank}"
    helps = "; ".join(what_helps(config, gpu=usage.gpu))
    more = "a GPU with more memory" if usage.gpu else "more memory in resourcesPerNode"
    return StageError(
        ExitCode.OUT_OF_MEMORY,
        f"out of memory{who}: {usage.describe()}. What would help most: {helps}; or {more}",
        rank,
    )


def what_helps(config: TrainerConfig, *, gpu: bool) -> list[str]:
    """The settings that would save most per device, with how much."""
    try:
        advice = estimate_run(config, gpu=gpu).advice[:SHOWN]
    except (OSError, ValueError):
        advice = ()
    return [describe(one) for one in advice] or list(_GENERAL)


def _read(files: tuple[Path, ...]) -> int | None:
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None
