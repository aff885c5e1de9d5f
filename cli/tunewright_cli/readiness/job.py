"""Readiness of a FineTuneJob: stage by stage."""

from collections.abc import Sequence

from tunewright_api.names import LABEL_STAGE
from tunewright_cli.chain.model import Object
from tunewright_cli.chain.pods import owner
from tunewright_cli.chain.states import condition, condition_status
from tunewright_cli.kinds import Kind
from tunewright_cli.readiness.model import Outcome, Step, about_of, accepted_step, after, seen_step
from tunewright_cli.readiness.pods import running_step, started_step

# condition, title, stage of its pods, states of status.stage in which it is under way
_MILESTONES = (
    ("DatasetReady", "the dataset was read", "prepare", {"Preparing"}),
    ("Trained", "the model is trained", "train", {"Queued", "Training"}),
    ("Evaluated", "the model keeps its gates", "evaluate", {"Evaluating"}),
    ("Exported", "the artifact is written", "export", {"Exporting"}),
)


def job_steps(job: Object, pods: Sequence[Object], namespace: str) -> list[Step]:
    """The checks of a job, in order."""
    own = [pod for pod in pods if owner(pod) == (Kind.JOB.title, job["metadata"]["name"])]
    steps = [
        seen_step(job),
        accepted_step(job, "the job can work", "create what the message names, or correct the job under a new name"),
        _suspended_step(job),
    ]
    for kind, title, stage, under_way in _MILESTONES:
        of_stage = [pod for pod in own if (pod["metadata"].get("labels") or {}).get(LABEL_STAGE) == stage]
        step = _milestone_step(job, kind, title, pods=of_stage, under_way=under_way, namespace=namespace)
        steps.append(after(steps, step))
    steps.append(after(steps, _registered_step(job)))
    return steps


def _suspended_step(job: Object) -> Step:
    title = "it is not suspended"
    if not job["spec"].get("suspend"):
        return Step(title, Outcome.PASSED)
    return Step(title, Outcome.WAITING, "spec.suspend is true", "set spec.suspend to false", about_of(job))


def _milestone_step(
    job: Object, kind: str, title: str, *, pods: Sequence[Object], under_way: set[str], namespace: str
) -> Step:
    found, status = condition(job, kind), job.get("status", {})
    if condition_status(job, kind) == "True" or condition_status(job, "Complete") == "True":
        return Step(title, Outcome.PASSED)
    if found and found["status"] == "False":
        failed = next((pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"), None)
        fix = "correct what the message names, and commit the job under a new name"
        about = (*about_of(job), *(about_of(failed) if failed else ()))
        return Step(
            title, Outcome.FAILED, found.get("message", ""), fix, about, failed["metadata"]["name"] if failed else ""
        )
    if status.get("stage") not in under_way:
        return Step(title, Outcome.WAITING)
    for step in (started_step(pods, title, namespace), running_step(pods, title, namespace)):
        if step.outcome is Outcome.FAILED:
            return step
    return Step(
        title, Outcome.WAITING, status.get("message") or "under way", "wait: it goes on by itself", about_of(job)
    )


def _registered_step(job: Object) -> Step:
    title = "the version is registered"
    if condition_status(job, "Complete") == "True":
        return Step(title, Outcome.PASSED)
    if failed := condition(job, "Failed"):
        fix = "correct what the message names, and commit the job under a new name"
        return Step(title, Outcome.FAILED, failed.get("message", ""), fix, about_of(job))
    return Step(title, Outcome.WAITING)
