"""What rank 0 tells of each step: /progress, /metrics and a line of the log."""

from collections.abc import Sequence

from tunewright_api.results import Progress
from tunewright_trainer import log
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.hardware import Hardware
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.progress import Pace
from tunewright_trainer.steps import EVAL_LOSS, StepRecord
from tunewright_trainer.telemetry import Telemetry


def begin(plan: RunPlan, saved: int | None, evaluations: Sequence[float]) -> Progress:
    """What is known before the first step of an attempt.

    Args:
        plan: The run.
        saved: Step of the checkpoint to go on from; None at the beginning.
        evaluations: Losses on held-out records up to that step.
    """
    step = saved or 0
    return Progress(
        step=step,
        total_steps=plan.total_steps,
        epoch=round(plan.epoch(step), 4),
        eval_loss=evaluations[-1] if evaluations else None,
        checkpoint_step=saved,
    )


class Reporter:
    """Publishes the state of the run from the first step on, or from the checkpoint it resumes from."""

    def __init__(
        self,
        plan: RunPlan,
        pace: Pace,
        telemetry: Telemetry,
        checkpoints: Checkpointer,
        *,
        hardware: Hardware,
        evaluations: Sequence[float],
    ) -> None:
        self._pace, self._telemetry, self._checkpoints, self._hardware = pace, telemetry, checkpoints, hardware
        start = begin(plan, checkpoints.completed, evaluations)
        self._eval_loss = start.eval_loss
        telemetry.publish(start)

    def on_step(self, record: StepRecord) -> None:
        """Publish a finished step."""
        self._eval_loss = record.figures.get(EVAL_LOSS, self._eval_loss)
        progress = Progress(
            step=record.step,
            total_steps=record.total_steps,
            epoch=round(record.epoch, 4),
            eta_seconds=self._pace.eta_seconds(record.step),
            tokens_per_second=record.tokens_per_second,
            loss=record.loss,
            eval_loss=self._eval_loss,
            gpu_memory_percent=self._hardware.memory_percent(record),
            learning_rate=record.learning_rate,
            checkpoint_step=self._checkpoints.completed,
        )
        self._telemetry.publish(progress)
        self._telemetry.observe_step(record, self._hardware.utilisation.of(record))
        log.info(
            f"step {record.step}/{record.total_steps}",
            **{**record.figures, **progress.to_dict()},
            gradNorm=record.grad_norm,
            seconds=round(record.seconds, 4),
        )
