"""Out of memory: how much was in use, and the three settings that would help most, from the memory estimate."""

import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from tunewright_api.estimate import UnknownModelError, estimate_memory, read_settings, read_shape
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.layout import Layout

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
        of = f" of {_gib(self.limit)}" if self.limit else ""
        return f"{_gib(self.peak)}{of} of {self.where} were in use"


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


def what_helps(config: TrainerConfig, *, gpu: bool, count: int = 3) -> list[str]:
    """The settings that would save most per device, with how much."""
    rendezvous = config.rendezvous
    settings = read_settings(
        config.method,
        config.hyperparameters,
        config.distributed,
        processes=rendezvous.nodes * rendezvous.processes_per_node,
        gpu=gpu,
    )
    try:
        shape = read_shape(json.loads((Layout(config).base_model / "config.json").read_bytes()))
    except (OSError, ValueError, UnknownModelError):
        return list(_GENERAL[:count])
    advice = estimate_memory(shape, settings).advice[:count]
    return [f"{one.setting} (about {_gib(one.saves)} less)" for one in advice] or list(_GENERAL[:count])


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _read(files: tuple[Path, ...]) -> int | None:
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None
