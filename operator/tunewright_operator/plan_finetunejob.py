"""Which children of a FineTuneJob to apply, change and delete: from where it stands to one step."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_operator.config import OperatorConfig
from tunewright_operator.manifests.finetunejob import build_stage_job
from tunewright_operator.manifests.finetunejob_network import build_network_policy, build_service
from tunewright_operator.manifests.trainer_config import build_config_map
from tunewright_operator.plan import Step, plan
from tunewright_operator.policies.course import Course
from tunewright_operator.policies.suspend import suspend_patch
from tunewright_operator.policies.ttl import seconds_left

Manifest = dict[str, Any]


def plan_run(
    owner: Manifest,
    spec: FineTuneJobSpec,
    course: Course,
    children: Iterable[Manifest],
    config: OperatorConfig,
) -> Step:
    """The step of a job that goes on. A Job that exists is never applied again: its template cannot change."""
    if course.repeat:
        return Step(delete=(course.repeat.raw,))
    desired = [
        build_config_map(owner, spec, port=config.trainer_port),
        build_network_policy(owner, config),
        build_service(owner),
    ]
    if course.stage and course.job is None and not course.leaving and not spec.suspend:
        desired.append(build_stage_job(owner, spec, course.stage, course.attempt, config))
    change = suspend_patch(course.job, spec.suspend)
    step = plan(desired, children)
    return Step(step.apply, patch=((course.job.raw, change),)) if course.job and change else step


def plan_end(children: Iterable[Manifest], ttl: int | None, finished: datetime | None, now: datetime) -> Step:
    """The step of a job that has ended: what still runs goes at once, all else when its time to live is over."""
    expired = seconds_left(ttl, finished, now) == 0
    gone = [child for child in children if expired or (child["kind"] == "Job" and not _ended(child))]
    return plan((), (), prune=gone)


def _ended(job: Manifest) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)
