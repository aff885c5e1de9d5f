"""Everything that rank 0 writes down while it trains: steps, TensorBoard files, and what it runs on."""

import json
import time
from collections.abc import Callable, Mapping

from tunewright_trainer.files import write_atomic
from tunewright_trainer.layout import Layout
from tunewright_trainer.report.environment import describe_environment
from tunewright_trainer.report.steplog import LoggedStep, StepLog
from tunewright_trainer.report.tensorboard import TensorBoardLog
from tunewright_trainer.steps import StepRecord


class RunLog:
    """Hooks of the loop: `on_step` for each step, `close` at the end.

    Args:
        layout: Where the job's files are.
        resume_step: Step of the checkpoint that training goes on from; 0 at the beginning.
        clock: Seconds since the epoch.
        kernels: Which code computes, by name.
    """

    def __init__(
        self,
        layout: Layout,
        resume_step: int,
        clock: Callable[[], float] = time.time,
        *,
        kernels: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._steps = StepLog(layout.steps, resume_step)
        self._tensorboard = TensorBoardLog(layout.tensorboard, self._steps.kept, now=clock())
        write_atomic(layout.environment, json.dumps({**describe_environment(), **(kernels or {})}, indent=2) + "\n")

    def on_step(self, record: StepRecord) -> None:
        """Write a finished step."""
        step = LoggedStep(self._clock(), record)
        self._steps.append(step)
        self._tensorboard.append(step)

    def close(self) -> None:
        """Close the files."""
        self._steps.close()
        self._tensorboard.close()
