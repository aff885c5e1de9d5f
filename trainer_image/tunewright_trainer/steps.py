"""What is known of each optimizer step, and who is told. Pure: no torch.

The loop makes one `StepRecord` per optimizer step, the same on every rank but for the figures of the process itself,
and hands it to its hooks: guards, telemetry, the step log.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

EVAL_LOSS = "evalLoss"
"""Name of the loss on held-out records in `StepRecord.figures`, in steps after which it was taken."""


@dataclass(frozen=True)
class StepRecord:
    """One finished optimizer step.

    Attributes:
        step: Optimizer steps done, this one included.
        total_steps: Optimizer steps of the whole run.
        epoch: Passes over the training records done.
        loss: Mean over the units of the global batch, penalty left out.
        learning_rate: Of this step.
        grad_norm: L2 norm of the whole gradient before clipping.
        seconds: From the end of the step before to the end of this one.
        data_wait_seconds: Part of `seconds` in which this process had no batch to work on.
        checkpoint_stall_seconds: Part of `seconds` in which a checkpoint kept this process from training.
        tokens: Tokens read in this step over all processes, padding left out.
        tokens_per_second: `tokens` over the mean time of the recent steps.
        samples: Records read in this step over all processes.
        memory_bytes: What this process holds at the end of the step: allocated on the GPU, or resident on a CPU.
        peak_memory_bytes: The most that it held so far.
        figures: Further numbers, by name: the objective's own, evaluation losses.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    data_wait_seconds: float
    checkpoint_stall_seconds: float
    tokens: int
    tokens_per_second: float
    samples: int
    memory_bytes: int
    peak_memory_bytes: int
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples_per_second(self) -> float:
        """Records over the time of this step."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    @property
    def data_wait_share(self) -> float:
        """Part of the step spent waiting for data: 0 to 1."""
        return self.data_wait_seconds / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Every field by its name; `figures` as a nested object."""
        return asdict(self) | {"figures": dict(self.figures)}


class StopTraining(Exception):  # noqa: N818 - it is no error
    """Raised by a hook, on all ranks at the same step: the run is over early and its weights are what is wanted.

    Args:
        reason: One sentence for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Hooks:
    """Who is told what: plain lists of functions, called in their order on every rank.

    A function may raise StopTraining to end the run well, or a StageError to end it badly. One that looks only at what
    all ranks share (loss, grad_norm, step) raises on all of them together.

    Attributes:
        phase: Told what the process is about to do, and at which step: `batch`, `agree`, `step`, `evaluate`,
            `checkpoint`, `save`.
        step: Told of every finished step.
        end: Called once when the loop is left, also after an error: to close files.
    """

    phase: list[Callable[[str, int], None]] = field(default_factory=list)
    step: list[Callable[[StepRecord], None]] = field(default_factory=list)
    end: list[Callable[[], None]] = field(default_factory=list)

    def enter(self, phase: str, step: int) -> None:
        """Tell what comes next."""
        for tell in self.phase:
            tell(phase, step)

    def finish(self, record: StepRecord) -> None:
        """Tell of a finished step."""
        for tell in self.step:
            tell(record)

    def close(self) -> None:
        """Tell that the loop was left."""
        for tell in self.end:
            tell()
