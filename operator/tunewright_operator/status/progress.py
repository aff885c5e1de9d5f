"""Progress of a run: figures for programs, and one line for people."""

from tunewright_api.finetunejob_status import CheckpointStatus, JobProgress
from tunewright_api.results import Progress, TrainResult


def compute_progress(report: Progress) -> JobProgress:
    """What rank 0 reports, as the status shows it."""
    percent = int(100 * report.step / report.total_steps) if report.total_steps else 0
    progress = JobProgress(
        percent=min(percent, 100),
        step=report.step,
        total_steps=report.total_steps,
        epoch=round(report.epoch, 2),
        eta_seconds=None if report.eta_seconds is None else max(round(report.eta_seconds), 0),
        tokens_per_second=None if report.tokens_per_second is None else round(report.tokens_per_second, 1),
        loss=_round(report.loss),
        eval_loss=_round(report.eval_loss),
        gpu_memory_percent=None if report.gpu_memory_percent is None else round(report.gpu_memory_percent, 1),
        learning_rate=report.learning_rate,
    )
    return progress.model_copy(update={"summary": summarize(progress)})


def finish_progress(last: JobProgress | None, result: TrainResult) -> JobProgress:
    """The progress of a run that has ended: every step is done and nothing is left."""
    progress = JobProgress(
        percent=100,
        step=result.steps,
        total_steps=result.steps,
        epoch=last.epoch if last else 0,
        eta_seconds=0,
        tokens_per_second=last.tokens_per_second if last else None,
        loss=last.loss if result.loss is None and last else _round(result.loss),
        eval_loss=last.eval_loss if last else None,
        learning_rate=last.learning_rate if last else None,
    )
    return progress.model_copy(update={"summary": summarize(progress)})


def newest_checkpoint(last: CheckpointStatus | None, step: int | None) -> CheckpointStatus | None:
    """The checkpoint with the higher step; a failing look at a run forgets nothing."""
    if step is None or (last and last.step >= step):
        return last
    return CheckpointStatus(step=step)


def summarize(progress: JobProgress) -> str:
    """`120/250 · loss 1.234 · eval 1.310 · 850 tok/s · GPU 71% · 1m05s left`, as far as known."""
    parts = [f"{progress.step}/{progress.total_steps}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.eval_loss is not None:
        parts.append(f"eval {progress.eval_loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:.0f} tok/s")
    if progress.gpu_memory_percent is not None:
        parts.append(f"GPU {progress.gpu_memory_percent:.0f}%")
    if progress.eta_seconds:
        parts.append(f"{format_seconds(progress.eta_seconds)} left")
    return " · ".join(parts)


def format_seconds(seconds: int) -> str:
    """1h02m, 1m05s or 5s."""
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    if seconds >= 60:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds}s"


def _round(loss: float | None) -> float | None:
    return None if loss is None else round(loss, 4)
