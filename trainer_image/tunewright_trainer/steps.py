"""What is known of each optimizer step, and who is told. Pure: no torch.

The loop makes one `StepRecord` per optimizer step, the same on every rank but for the figures of the process itself,
and hands it to its observers: guards, telemetry, the step log.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


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
        memory_bytes: Most memory that this process held so far: allocated on the GPU, or resident on a CPU.
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


class StepObserver(Protocol):
    """Told of every step, on every rank, in the order of the ranks' own loops."""

    def on_step(self, record: StepRecord) -> None:
        """A step is over.

        Raises:
            StageError: To end the run. An observer that looks only at figures that all ranks share (loss, grad_norm,
                step) raises on all of them together.
        """
        ...
