"""Who watches a run: one line per guard and per report."""

from collections.abc import Callable

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.guards.divergence import DivergenceGuard
from tunewright_trainer.guards.leak import LeakGuard
from tunewright_trainer.hardware import Hardware
from tunewright_trainer.kernels import Kernels
from tunewright_trainer.layout import Layout
from tunewright_trainer.optim.early_stopping import EarlyStop
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.precision import half
from tunewright_trainer.progress import Pace
from tunewright_trainer.report.runlog import RunLog
from tunewright_trainer.report.steplog import read_evaluations, read_steps
from tunewright_trainer.reporter import Reporter
from tunewright_trainer.startup import Startup
from tunewright_trainer.steps import Hooks
from tunewright_trainer.telemetry import Telemetry


def build_hooks(
    config: TrainerConfig,
    plan: RunPlan,
    pace: Pace,
    telemetry: Telemetry | None,
    checkpoints: Checkpointer,
    *,
    hardware: Hardware,
    kernels: Kernels,
    from_first: Callable[[int], int],
    startup: Startup,
) -> Hooks:
    """The hooks of this rank; `telemetry` exists on rank 0 only, and `from_first` tells all ranks its number."""
    saved = checkpoints.completed or 0
    past = read_evaluations(Layout(config).steps, saved) if telemetry else []
    divergence = DivergenceGuard(
        config.hyperparameters.divergence,
        scales_loss=half(config) == "float16",
        past=[step.record for step in read_steps(Layout(config).steps, saved)] if telemetry else [],
        from_first=from_first,
    )
    hooks = Hooks(step=[divergence.on_step, LeakGuard().on_step])
    if telemetry:
        # Before the guards: the log has the step that they end the run for.
        run_log = RunLog(Layout(config), saved, kernels=kernels.in_words())
        hooks.step.insert(0, run_log.on_step)
        hooks.end.append(run_log.close)
        hooks.phase.append(startup.report(telemetry.observe_startup))
        reporter = Reporter(plan, pace, telemetry, checkpoints, hardware=hardware, evaluations=past)
        hooks.step.append(reporter.on_step)
    if config.hyperparameters.early_stopping:
        # Last of all: the step that ends the run is told to everybody.
        hooks.step.append(EarlyStop(config.hyperparameters.early_stopping, past, from_first).on_step)
    return hooks
