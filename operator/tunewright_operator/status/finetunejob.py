"""Status of a FineTuneJob: what the stages found is recorded once, then the conditions follow from where it stands."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tunewright_api.base import LocalObjectRef
from tunewright_api.finetunejob_status import DatasetStatus, FineTuneJobStatus, JobStage, StageTime
from tunewright_api.names import ConditionType, Stage
from tunewright_api.results import MetricPair, Progress
from tunewright_operator.observe.times import format_time, parse_time
from tunewright_operator.policies.acceptance import Refusal
from tunewright_operator.policies.course import Course, StageEnd
from tunewright_operator.status.conditions import FALSE, TRUE, find, is_true
from tunewright_operator.status.declare import State, declare
from tunewright_operator.status.progress import compute_progress, finish_progress, newest_checkpoint
from tunewright_operator.status.standing import Situation, Standing, find_standing

MILESTONES = {
    Stage.PREPARE: ConditionType.DATASET_READY,
    Stage.TRAIN: ConditionType.TRAINED,
    Stage.EVALUATE: ConditionType.EVALUATED,
    Stage.EXPORT: ConditionType.EXPORTED,
}


def is_finished(status: FineTuneJobStatus) -> bool:
    """Whether the job has ended, well or badly: it is never planned again."""
    return any(is_true(status.conditions, kind) for kind in (ConditionType.COMPLETE, ConditionType.FAILED))


def counted_from(status: FineTuneJobStatus) -> datetime | None:
    """From when activeDeadlineSeconds counts: the start, or the end of the last suspension, as in a batch Job.

    None before the start and while suspended.
    """
    if status.start_time is None:
        return None
    suspended = find(status.conditions, ConditionType.SUSPENDED)
    if suspended is None:
        return parse_time(status.start_time)
    if suspended.status is TRUE:
        return None
    return max(parse_time(status.start_time), parse_time(suspended.last_transition_time))


def done_stages(status: FineTuneJobStatus) -> frozenset[Stage]:
    """Stages whose findings are in the status. Export counts only together with Complete, which ends everything."""
    done = {stage for stage, kind in MILESTONES.items() if is_true(status.conditions, kind)}
    return frozenset(done - {Stage.EXPORT})


def repeated_jobs(status: FineTuneJobStatus) -> Mapping[Stage, Sequence[str]]:
    """UIDs of the Jobs whose result was lost, by stage."""
    return {Stage(time.stage): time.repeated for time in status.stages}


def refuse(status: FineTuneJobStatus, refusal: Refusal, *, generation: int, now: datetime) -> FineTuneJobStatus:
    """The status of a job that cannot work as it is, or not yet; what it has reached stays reached."""
    verdict = ConditionType.STALLED if refusal.final else ConditionType.RECONCILING
    states = (
        State(ConditionType.ACCEPTED, FALSE, refusal.reason, refusal.message),
        State(verdict, TRUE, refusal.reason, refusal.message),
        *(
            State(kind, old.status, old.reason, old.message)
            for kind in (*MILESTONES.values(), ConditionType.COMPLETE, ConditionType.FAILED)
            if (old := find(status.conditions, kind))
        ),
    )
    conditions = declare(tuple(status.conditions), states, generation=generation, now=now)
    return status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": list(conditions),
            "stage": JobStage.PENDING,
            "message": refusal.message,
        }
    )


def record(
    status: FineTuneJobStatus, course: Course, report: Progress | None, *, starts: bool, now: datetime
) -> FineTuneJobStatus:
    """The status with what the course and rank 0 have to tell; conditions are not touched."""
    update: dict[str, Any] = {"restarts": list(course.restarts), "stages": _stage_times(status, course)}
    if starts and status.start_time is None:
        update["start_time"] = format_time(now)
    if report:
        update["progress"] = compute_progress(report)
        update["last_checkpoint"] = newest_checkpoint(status.last_checkpoint, report.checkpoint_step)
    for end in course.ended:
        update |= _findings(status.model_copy(update=update), end)
    if course.estimate:
        update["estimate"] = course.estimate
    if course.evaluation:
        update["evaluation"] = list(course.evaluation)
    return status.model_copy(update=update)


def compute_status(seen: Situation, now: datetime) -> FineTuneJobStatus:
    """The recorded status with its conditions, stage and message."""
    standing = find_standing(seen)
    conditions = declare(
        tuple(seen.status.conditions), list(_states(seen, standing)), generation=seen.generation, now=now
    )
    update: dict[str, Any] = {
        "observed_generation": seen.generation,
        "conditions": list(conditions),
        "stage": standing.stage,
        "message": standing.message,
    }
    if seen.failure or seen.registered:
        update["completion_time"] = format_time(now)
    if seen.registered:
        update["model_version_ref"] = LocalObjectRef(name=seen.registered)
    return seen.status.model_copy(update=update)


def acknowledge(status: FineTuneJobStatus, generation: int) -> FineTuneJobStatus:
    """A finished job after a change of its spec: seen, and nothing to do."""
    return status.model_copy(update={"observed_generation": generation})


def _states(seen: Situation, standing: Standing) -> Iterable[State]:
    yield State(ConditionType.ACCEPTED, TRUE, "Accepted", "every claim and Secret is there, and the version is free")
    if seen.failure:
        yield State(ConditionType.STALLED, TRUE, seen.failure.reason, seen.failure.message)
    elif standing.reconciling:
        yield State(ConditionType.RECONCILING, TRUE, standing.reconciling, standing.message)
    yield from _suspension(seen, standing)
    yield from _milestones(seen)
    if seen.failure:
        yield State(ConditionType.FAILED, TRUE, seen.failure.reason, seen.failure.message)
    elif seen.registered:
        yield State(ConditionType.COMPLETE, TRUE, "Registered", standing.message)


def _suspension(seen: Situation, standing: Standing) -> Iterable[State]:
    if standing.stage is JobStage.SUSPENDED and not standing.reconciling:
        yield State(ConditionType.SUSPENDED, TRUE, "Suspended", standing.message)
    elif find(seen.status.conditions, ConditionType.SUSPENDED):
        yield State(ConditionType.SUSPENDED, FALSE, "Resumed", "spec.suspend is false")


def _milestones(seen: Situation) -> Iterable[State]:
    for stage, kind in MILESTONES.items():
        old = find(seen.status.conditions, kind)
        if end := seen.course.end_of(stage):
            yield State(kind, TRUE, "Succeeded", _describe(seen.status, end))
        elif old and old.status is TRUE:
            yield State(kind, TRUE, old.reason, old.message)
        elif seen.failure and seen.course.stage is stage:
            yield State(kind, FALSE, seen.failure.reason, seen.failure.message)


def _describe(status: FineTuneJobStatus, end: StageEnd) -> str:
    """What a stage found, in one sentence."""
    result = end.result
    if result.prepare:
        found = result.prepare
        cut = f", {found.truncated} of them cut to sequenceLength" if found.truncated else ""
        cut += f", {found.divided} divided into {found.pieces} pieces" if found.divided else ""
        out = [
            f", {count} {what}"
            for count, what in ((found.dropped, "dropped"), (found.quarantined, "quarantined"))
            if count
        ]
        return f"{found.records} records{cut}: {found.train} to train on, {found.validation} held out{''.join(out)}"
    if result.train:
        loss = "" if result.train.loss is None else f", loss {result.train.loss:.4g}"
        return f"{result.train.steps} steps{loss}"
    if result.evaluate:
        return f"{result.evaluate.records} held-out records: {compare(result.evaluate.metrics)}"
    assert result.export is not None
    return f"{result.export.size_bytes} bytes, {result.export.digest}"


def compare(metrics: Iterable[MetricPair]) -> str:
    """`Loss 4.6 -> 1.8, RougeL 0.11 -> 0.52`: base model, then tuned model."""
    return ", ".join(f"{m.metric.value} {m.base:.3g} -> {m.tuned:.3g}" for m in metrics)


def _findings(status: FineTuneJobStatus, end: StageEnd) -> dict[str, Any]:
    result = end.result
    if result.prepare:
        return {"dataset": DatasetStatus.model_validate(result.prepare.model_dump())}
    if result.train:
        return {
            "progress": finish_progress(status.progress, result.train),
            "last_checkpoint": newest_checkpoint(status.last_checkpoint, result.train.checkpoint_step),
        }
    return {"samples": list(result.evaluate.samples)} if result.evaluate else {}


def _stage_times(status: FineTuneJobStatus, course: Course) -> list[StageTime]:
    """Start of the first Job and end of the last of each stage."""
    times = {time.stage: time for time in status.stages}
    seen = [end.job for end in course.ended] + ([course.job] if course.job else [])
    for job in seen:
        old = times.get(job.stage.value)
        if old is None and job.created is None:
            continue
        started = old.started if old else format_time(job.created) if job.created else ""
        ended = job.ended if course.end_of(job.stage) or course.failure else None
        finished = format_time(ended) if ended else (old.finished if old else None)
        repeated = old.repeated if old else []
        if course.repeat is job and job.uid not in repeated:
            repeated = [*repeated, job.uid]
        times[job.stage.value] = StageTime(stage=job.stage.value, started=started, finished=finished, repeated=repeated)
    return list(times.values())
