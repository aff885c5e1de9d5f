"""Who watches a run: one line per guard and per report."""

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.guards.divergence import DivergenceGuard
from tunewright_trainer.guards.leak import LeakGuard
from tunewright_trainer.hardware import Hardware
from tunewright_trainer.layout import Layout
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.progress import Pace
from tunewright_trainer.report.runlog import RunLog
from tunewright_trainer.reporter import Reporter
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
) -> Hooks:
    """The hooks of this rank; `telemetry` exists on rank 0 only."""
    hooks = Hooks(step=[DivergenceGuard(config.hyperparameters.divergence).on_step, LeakGuard().on_step])
    if telemetry:
        # Before the guards: the log has the step that they end the run for.
        run_log = RunLog(Layout(config), checkpoints.completed or 0)
        hooks.step.insert(0, run_log.on_step)
        hooks.end.append(run_log.close)
        hooks.step.append(Reporter(plan, pace, telemetry, checkpoints, hardware=hardware).on_step)
    return hooks
