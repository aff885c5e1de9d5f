"""Where a job stands: which stages are done, which one is next, what was lost on the way, whether it failed.

Walks prepare -> train -> evaluate -> export over what the status remembers and what the Jobs show, so the answer is
the same whenever and however often it is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count

from tunewright_api.evaluation import MetricResult
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.finetunejob_status import EstimateStatus, Restart
from tunewright_api.names import Stage
from tunewright_api.results import StageResult
from tunewright_operator.observe.jobs import Jobs, JobState, JobView, Orphans
from tunewright_operator.observe.pods import PodView
from tunewright_operator.policies.failure import Failure, describe_failure
from tunewright_operator.policies.gates import gate_failure, judge
from tunewright_operator.policies.loss import Loss, find_loss, find_orphaned, vanished
from tunewright_operator.policies.memory import judge_memory, memory_failure
from tunewright_operator.policies.restart import forget_from, recall, remember, restart_refusal

# How often a stage runs again because nobody could read its result.
MAX_REPEATS = 2

STAGES = (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT)


@dataclass(frozen=True)
class StageEnd:
    """A stage that has ended well."""

    stage: Stage
    job: JobView
    result: StageResult


@dataclass(frozen=True)
class Course:
    """The answer. `stage` is None when all four are done; `job` is the current stage's, None before it is created."""

    restarts: tuple[Restart, ...]
    ended: tuple[StageEnd, ...] = ()
    stage: Stage | None = None
    attempt: int = 1
    job: JobView | None = None
    loss: Loss | None = None
    failure: Failure | None = None
    # A Job whose result was lost with its pods: it runs again.
    repeat: JobView | None = None
    waits_for_result: bool = False
    # Pods without a Job that still run: nothing starts beside them.
    leaving: tuple[PodView, ...] = ()
    estimate: EstimateStatus | None = None
    evaluation: tuple[MetricResult, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether nothing is left but to register the version."""
        return self.stage is None and self.failure is None

    def end_of(self, stage: Stage) -> StageEnd | None:
        """The stage's end, if it has just been seen."""
        return next((end for end in self.ended if end.stage is stage), None)


def find_course(
    spec: FineTuneJobSpec,
    done: frozenset[Stage],
    restarts: Sequence[Restart],
    jobs: Jobs,
    *,
    orphans: Orphans,
    repeated: Mapping[Stage, Sequence[str]],
    now: datetime,
    grace: timedelta,
) -> Course:
    """Walk the stages that the status does not know to be `done`.

    `repeated` has the uids of the Jobs of a stage whose result was lost before. `grace` is how long after the end of a
    Job its pod's message may still be on its way to us.
    """
    course = Course(tuple(restarts))
    for stage in STAGES:
        if stage in done:
            continue
        course = (
            _walk_training(course, spec, jobs, orphans, now=now, grace=grace)
            if stage is Stage.TRAIN
            else _look(course, stage, 1, jobs)
        )
        if course.job is None:
            course = replace(course, leaving=orphans.active)
        if stage is not Stage.TRAIN and course.job and course.job.state is JobState.FAILED:
            return _fail(course, now, grace)
        if course.failure or course.job is None or course.job.state is not JobState.SUCCEEDED or course.job.deleting:
            return course
        course = _finish(course, spec, repeated.get(stage, ()), now, grace)
        if course.stage is not None:
            return course
    return course


def _look(course: Course, stage: Stage, attempt: int, jobs: Jobs) -> Course:
    return replace(course, stage=stage, attempt=attempt, job=jobs.get((stage, attempt)))


def _walk_training(
    course: Course, spec: FineTuneJobSpec, jobs: Jobs, orphans: Orphans, *, now: datetime, grace: timedelta
) -> Course:
    """Past every lost attempt, to the one that runs, has succeeded, or is to be created."""
    for attempt in count(1):
        course = _look(course, Stage.TRAIN, attempt, jobs)
        job = course.job
        known = next((r for r in course.restarts if r.attempt == attempt), None)
        if job is None and (loss := find_orphaned(orphans.own.get((Stage.TRAIN, attempt), ()))):
            course = replace(course, restarts=remember(course.restarts, attempt, loss, now), loss=loss)
            if failure := restart_refusal(spec.restart_policy, attempt, loss):
                return replace(course, failure=failure)
            continue
        if job is None and known:
            continue  # lost, and its Job is already gone
        if job is None or job.deleting:
            return course
        if job.state is JobState.SUCCEEDED:
            return replace(course, restarts=forget_from(course.restarts, attempt))
        loss = None if job.suspended else find_loss(job)
        if job.state is JobState.ACTIVE and spec.suspend:
            return course  # its pods end because they were told to
        if job.state is JobState.ACTIVE:
            # The pod that failed may be gone by the time the Job has ended: it is remembered at once.
            restarts = remember(course.restarts, attempt, loss, now) if loss else course.restarts
            return replace(course, restarts=restarts, loss=loss)
        if not (loss or known) and _fresh(job, now, grace):
            return replace(course, waits_for_result=True)
        loss = loss or (recall(known) if known else vanished(job))
        course = replace(course, restarts=remember(course.restarts, attempt, loss, now), loss=loss)
        if failure := restart_refusal(spec.restart_policy, attempt, loss):
            return replace(course, failure=failure)
    raise AssertionError("unreachable")


def _finish(course: Course, spec: FineTuneJobSpec, repeated: Sequence[str], now: datetime, grace: timedelta) -> Course:
    """The stage's Job has succeeded: take its result, or run it again if that is lost."""
    job, stage = course.job, course.stage
    assert job is not None
    assert stage is not None
    result = job.result
    if result is None or getattr(result, stage.value) is None:
        if _fresh(job, now, grace) or any(pod.index == 0 and pod.active for pod in job.pods):
            return replace(course, waits_for_result=True)
        failure = _unreadable(job) or _lost_too_often(job, repeated)
        return replace(course, failure=failure) if failure else replace(course, repeat=job)
    course = replace(course, ended=(*course.ended, StageEnd(stage, job, result)))
    if result.prepare and (estimate := result.prepare.estimate):
        course = replace(course, estimate=judge_memory(spec, estimate), failure=memory_failure(spec, estimate))
    if stage is Stage.EVALUATE and result.evaluate:
        gates = spec.evaluation.gates or ()
        evaluation = judge(result.evaluate.metrics, gates)
        course = replace(course, evaluation=evaluation, failure=gate_failure(evaluation, gates))
    return course if course.failure else replace(course, stage=None, job=None, loss=None)


def _unreadable(job: JobView) -> Failure | None:
    """The pod is there and has no result of ours: the next one would have none either."""
    pod = next((pod for pod in job.pods if pod.index == 0 and not pod.failed), None)
    if pod is None:
        return None
    return Failure(
        "ResultUnreadable",
        f"{job.stage.value} succeeded, but the termination message of pod {pod.name} is no result of the stage "
        f"{job.stage.value}: the image {job.image} does not fit to this operator. What to do: set the trainer image "
        "of the operator's own release, then commit a FineTuneJob with a new name",
    )


def _lost_too_often(job: JobView, repeated: Sequence[str]) -> Failure | None:
    if len({*repeated, job.uid}) <= MAX_REPEATS:
        return None
    return Failure(
        "ResultLost",
        f"{job.stage.value} succeeded {MAX_REPEATS + 1} times, and each time its pod was gone before its result could "
        "be read. What to do: find out who removes pods that have ended, then commit a FineTuneJob with a new name",
    )


def _fail(course: Course, now: datetime, grace: timedelta) -> Course:
    """A stage on one pod has failed for good; its last pod says why."""
    job = course.job
    assert job is not None
    last = max(
        (pod for pod in job.current_pods if pod.failed),
        key=lambda p: (p.ended or p.deleted or now, p.name),
        default=None,
    )
    if last is None and _fresh(job, now, grace):
        return replace(course, waits_for_result=True)
    loss = find_loss(replace(job, pods=(last,))) if last else None
    loss = loss or vanished(job)
    return replace(course, loss=loss, failure=describe_failure(job.stage.value, loss))


def _fresh(job: JobView, now: datetime, grace: timedelta) -> bool:
    return job.ended is None or now - job.ended < grace
