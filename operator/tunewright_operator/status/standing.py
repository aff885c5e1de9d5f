"""What to tell people and kstatus about a job right now: ordered checks, first hit wins."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.finetunejob_status import FineTuneJobStatus, JobStage
from tunewright_api.names import Stage
from tunewright_operator.observe.jobs import JobView
from tunewright_operator.observe.pod_problem import worst_problem
from tunewright_operator.policies.course import Course
from tunewright_operator.policies.failure import Failure
from tunewright_operator.policies.loss import find_loss
from tunewright_operator.policies.pods import seconds_to_pods

_RUNNING = {
    Stage.PREPARE: (JobStage.PREPARING, "checking the dataset"),
    Stage.TRAIN: (JobStage.TRAINING, "training"),
    Stage.EVALUATE: (JobStage.EVALUATING, "comparing the base and the tuned model on the held-out records"),
    Stage.EXPORT: (JobStage.EXPORTING, "writing the artifact"),
}


@dataclass(frozen=True)
class Situation:
    """All that the status is computed from; `status` is the one before."""

    generation: int
    now: datetime
    namespace: str
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    course: Course
    failure: Failure | None = None
    refused: str = ""  # what the apiserver said to our children
    refused_reason: str = "Refused"
    registered: str = ""  # name of the ModelVersion, once it is there


@dataclass(frozen=True)
class Standing:
    """`reconciling` is the reason of Reconciling=True, empty where kstatus shall call the job current."""

    stage: JobStage
    message: str
    reconciling: str = ""


def find_standing(seen: Situation) -> Standing:
    """The first check that has something to say."""
    standing = next((found for check in _CHECKS if (found := check(seen))), None)
    assert standing is not None, "the last check always answers"
    return standing


def _failed(seen: Situation) -> Standing | None:
    return Standing(JobStage.FAILED, seen.failure.message) if seen.failure else None


def _complete(seen: Situation) -> Standing | None:
    if not seen.registered:
        return None
    return Standing(JobStage.COMPLETE, f"registered as ModelVersion {seen.registered}; approval is decided there")


def _refused(seen: Situation) -> Standing | None:
    if not seen.refused:
        return None
    stage = _RUNNING[seen.course.stage][0] if seen.course.stage else JobStage.EXPORTING
    return Standing(stage, f"the apiserver refuses what the job needs: {seen.refused}", seen.refused_reason)


def _suspended(seen: Situation) -> Standing | None:
    if not seen.spec.suspend or seen.course.complete:
        return None
    pods = seen.course.job.active_pods if seen.course.job else seen.course.leaving
    if pods:
        return Standing(JobStage.SUSPENDED, f"stopping {_count(len(pods), 'pod')}: saving a checkpoint", "Suspending")
    return Standing(JobStage.SUSPENDED, "suspended: no pod runs; set spec.suspend to false to go on")


def _registering(seen: Situation) -> Standing | None:
    return Standing(JobStage.EXPORTING, "registering the version") if seen.course.complete else None


def _repeating(seen: Situation) -> Standing | None:
    course = seen.course
    if not course.repeat:
        return None
    stage = course.repeat.stage
    message = f"{stage.value} runs again: its pod was gone before its result could be read"
    return Standing(_RUNNING[stage][0], message, "ResultLost")


def _leaving(seen: Situation) -> Standing | None:
    course = seen.course
    if not course.leaving or course.stage is None:
        return None
    stage = JobStage.QUEUED if course.stage is Stage.TRAIN else _RUNNING[course.stage][0]
    pods = f"{_count(len(course.leaving), 'pod')} of a Job that was deleted to end ({course.leaving[0].name})"
    return Standing(stage, f"{course.stage.value}: waiting for {pods}", "Restarting")


def _losing(seen: Situation) -> Standing | None:
    course = seen.course
    if course.stage is not Stage.TRAIN or not course.loss or not course.job:
        return None
    message = f"attempt {course.attempt} is lost: {course.loss.message} ({course.loss.where}); ending its other pods"
    return Standing(JobStage.QUEUED, message, "Restarting")


def _blocked(seen: Situation) -> Standing | None:
    """A pod cannot start: no node, no image, no volume."""
    job = seen.course.job
    if job is None:
        return None
    waiting = [pod.raw for pod in job.pods if pod.active and not pod.running and not pod.deleted and pod.raw]
    problem = worst_problem(waiting)
    if problem is None:
        return None
    queued = problem.reason == "Unschedulable"
    stage = JobStage.QUEUED if queued else _RUNNING[job.stage][0]
    return Standing(stage, f"{job.stage.value}: {problem.message}", "Queued" if queued else problem.reason)


def _podless(seen: Situation) -> Standing | None:
    """The Job controller cannot create the pods; only the Job's Events say why."""
    job = seen.course.job
    left = seconds_to_pods(job, _wanted(seen), seen.now)
    if job is None or left is None or left > 0:
        return None
    message = (
        f"{job.stage.value}: {len(job.pods)} of {_count(_wanted(seen), 'pod')} created. A quota, a LimitRange or Pod "
        f"Security may refuse them: `kubectl -n {seen.namespace} describe job {job.name}` says why"
    )
    stage = JobStage.QUEUED if job.stage is Stage.TRAIN else _RUNNING[job.stage][0]
    return Standing(stage, message, "PodsNotCreated")


def _starting(seen: Situation) -> Standing | None:
    """Not every pod of the stage runs yet."""
    course = seen.course
    assert course.stage is not None
    wanted = _wanted(seen)
    running = _started(course.job)
    if running >= wanted:
        return None
    stage = JobStage.QUEUED if course.stage is Stage.TRAIN else _RUNNING[course.stage][0]
    again = f" of attempt {course.attempt}" if course.attempt > 1 else ""
    message = f"{course.stage.value}: {running} of {_count(wanted, 'pod')}{again} started{_last_try(seen)}"
    # Only what comes before training is in progress for kstatus; evaluate and export follow within seconds.
    in_progress = course.stage in {Stage.PREPARE, Stage.TRAIN}
    return Standing(stage, message, ("Preparing" if course.stage is Stage.PREPARE else "Queued") if in_progress else "")


def _running(seen: Situation) -> Standing:
    stage = seen.course.stage
    assert stage is not None
    shown, message = _RUNNING[stage]
    if stage is Stage.PREPARE:
        return Standing(shown, message, "Preparing")
    if stage is Stage.TRAIN and seen.status.progress:
        message = seen.status.progress.summary or message
    return Standing(shown, message)


_CHECKS: tuple[Callable[[Situation], Standing | None], ...] = (
    _failed,
    _complete,
    _refused,
    _suspended,
    _registering,
    _repeating,
    _leaving,
    _losing,
    _blocked,
    _podless,
    _starting,
    _running,
)


def _wanted(seen: Situation) -> int:
    return seen.spec.num_nodes if seen.course.stage is Stage.TRAIN else 1


def _last_try(seen: Situation) -> str:
    """Why a stage on one pod is tried again."""
    job = seen.course.job
    if job is None or job.stage is Stage.TRAIN or not (loss := find_loss(job)):
        return ""
    return f"; a try before failed: {loss.message} ({loss.where})"


def _started(job: JobView | None) -> int:
    """Pods whose container runs or has ended well; the phase of one that has ended follows a moment later."""
    pods = job.pods if job else ()
    started = {
        pod.index
        for pod in pods
        if pod.phase == "Succeeded" or (not pod.deleted and (pod.running or pod.exit_code == 0))
    }
    return len(started)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
