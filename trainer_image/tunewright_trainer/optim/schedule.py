"""The learning rate of each optimizer step. Pure."""

import math

from tunewright_api.hyperparameters import Scheduler


def learning_rate(step: int, *, peak: float, scheduler: Scheduler, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of step `step`, counted from 0.

    With W warm-up steps of T the rate rises linearly, peak (step + 1) / (W + 1), reaches its peak at step W, and then
    follows the scheduler over the share p = (step - W) / (T - W) of what is left: peak (1 + cos(pi p)) / 2 for Cosine
    (Loshchilov and Hutter 2017, arXiv:1608.03983, one cycle down to 0), peak (1 - p) for Linear, peak for Constant.
    No step of the run has the rate 0: one that changes nothing would be wasted.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    share = (step - warmup_steps) / (total_steps - warmup_steps)
    match scheduler:
        case Scheduler.COSINE:
            return peak * 0.5 * (1.0 + math.cos(math.pi * share))
        case Scheduler.LINEAR:
            return peak * (1.0 - share)
        case Scheduler.CONSTANT:
            return peak
