"""What rank 0 tells of each step: /progress, /metrics and a line of the log."""

from tunewright_api.results import Progress
from tunewright_trainer import log
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.hardware import Hardware
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.progress import Pace
from tunewright_trainer.steps import EVAL_LOSS, StepRecord
from tunewright_trainer.telemetry import Telemetry


class Reporter:
    """Publishes the state of the run from the first step on, or from the checkpoint it resumes from."""

    def __init__(
        self, plan: RunPlan, pace: Pace, telemetry: Telemetry, checkpoints: Checkpointer, *, hardware: Hardware
    ) -> None:
        self._plan, self._pace, self._telemetry, self._checkpoints = plan, pace, telemetry, checkpoints
        self._hardware = hardware
        self._eval_loss: float | None = None
        step = checkpoints.completed
        telemetry.publish(
            Progress(step=step or 0, total_steps=plan.total_steps, epoch=plan.epoch(step or 0), checkpoint_step=step)
        )

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
