"""The numbers of a run that follow from its configuration and the dataset's size. Pure."""

import math
from dataclasses import dataclass

from tunewright_api.hyperparameters import Hyperparameters

DEFAULT_EPOCHS = 3


@dataclass(frozen=True)
class RunPlan:
    """How long the run is.

    Attributes:
        records: Records to train on.
        global_batch: Records per optimizer step, over all processes.
        total_steps: Optimizer steps of the whole run.
        warmup_steps: Steps over which the learning rate rises from 0.
    """

    records: int
    global_batch: int
    total_steps: int
    warmup_steps: int

    @property
    def positions(self) -> int:
        """Records consumed by the whole run, counting repetitions."""
        return self.total_steps * self.global_batch

    def epoch(self, step: int) -> float:
        """Passes over the records after `step` steps."""
        return step * self.global_batch / self.records


def plan_run(hyperparameters: Hyperparameters, records: int, world_size: int) -> RunPlan:
    """Epochs are rounded up to whole steps; the last step of a run is filled from the next permutation."""
    global_batch = hyperparameters.micro_batch_size * hyperparameters.gradient_accumulation_steps * world_size
    steps = hyperparameters.max_steps
    if steps is None:
        epochs = hyperparameters.epochs or DEFAULT_EPOCHS
        steps = math.ceil(epochs * records / global_batch)
    # 0.07 x 100 is 7.000000000000001: no step more for it.
    return RunPlan(records, global_batch, steps, math.ceil(round(hyperparameters.warmup_ratio * steps, 9)))
