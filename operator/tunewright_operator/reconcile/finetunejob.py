"""FineTuneJob: prepare, train, evaluate, export, register. One look at the world, one step."""

from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.finetunejob_status import FineTuneJobStatus, JobStage
from tunewright_api.names import API_VERSION, Stage
from tunewright_api.results import Progress
from tunewright_operator.clients.trainer import fetch_progress
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.errors import Forbidden, Invalid
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.manifests.registration import build_model_version, registered_by, version_name
from tunewright_operator.manifests.trainer_config import claims_of, output_path
from tunewright_operator.observe.jobs import observe_jobs, observe_orphans
from tunewright_operator.observe.times import parse_optional
from tunewright_operator.plan_finetunejob import plan_end, plan_run
from tunewright_operator.policies import deadline, ttl
from tunewright_operator.policies.acceptance import Facts, Refusal, check_acceptance, secrets_of, version_exists
from tunewright_operator.policies.course import Course, find_course
from tunewright_operator.policies.failure import Failure
from tunewright_operator.policies.pods import seconds_to_pods
from tunewright_operator.reconcile.execute import execute
from tunewright_operator.reconcile.lookup import find
from tunewright_operator.reconcile.result import Children, Result
from tunewright_operator.status.finetunejob import (
    acknowledge,
    compute_status,
    counted_from,
    done_stages,
    is_finished,
    record,
    refuse,
    repeated_jobs,
)
from tunewright_operator.status.parsing import explain
from tunewright_operator.status.standing import Situation

# While a result or a deleted Job is on its way.
_SOON_SECONDS = 2.0


async def reconcile(kube: Kube, config: OperatorConfig, obj: Manifest, children: Children, now: datetime) -> Result:
    """Move one step towards a registered version, or say why there will be none."""
    status = FineTuneJobStatus.model_validate(obj.get("status") or {})
    generation = obj["metadata"]["generation"]
    if is_finished(status):  # whether or not this operator can read its spec
        return await _clean_up(kube, obj, status, children=children, now=now)
    try:
        spec = FineTuneJobSpec.model_validate(obj["spec"])
    except ValidationError as error:
        refusal = Refusal("InvalidSpec", explain(error))
        return Result(refuse(status, refusal, generation=generation, now=now).to_dict())
    if status.start_time is None:
        refused = check_acceptance(spec, await _gather_facts(kube, obj, spec))
        if refused:
            stored = refuse(status, refused, generation=generation, now=now).to_dict()
            return Result(stored, requeue_after=config.recheck_interval)

    course = _find_course(obj, spec, status, children, config=config, now=now)
    report = await _ask_progress(course, config)
    step = plan_run(obj, spec, course, _owned(children), config)
    if course.failure:
        step = plan_end(_owned(children), None, None, now)
    refusal_of_children = await execute(kube, step)
    status = record(status, course, report, starts=not spec.suspend, now=now)
    seen = Situation(
        generation, now, obj["metadata"]["namespace"], spec, status=status, course=course, failure=course.failure
    )
    if refusal_of_children:
        seen = replace(
            seen, refused=refusal_of_children.message, refused_reason=refusal_of_children.reason or seen.refused_reason
        )
    elif course.complete:
        seen = await _register(kube, obj, seen)
    final = compute_status(seen, now)
    return Result(final.to_dict(), requeue_after=_next_look(spec, final, seen, config, now))


def _find_course(
    obj: Manifest,
    spec: FineTuneJobSpec,
    status: FineTuneJobStatus,
    children: Children,
    *,
    config: OperatorConfig,
    now: datetime,
) -> Course:
    jobs = observe_jobs(children.jobs, children.pods)
    grace = timedelta(seconds=config.result_grace)
    course = find_course(
        spec,
        done_stages(status),
        status.restarts,
        jobs,
        orphans=observe_orphans(children.orphans, obj["metadata"]["uid"]),
        repeated=repeated_jobs(status),
        now=now,
        grace=grace,
    )
    if course.failure or course.complete or spec.suspend:
        return course
    late = deadline.deadline_failure(spec.active_deadline_seconds, counted_from(status), now)
    return replace(course, failure=late)


async def _gather_facts(kube: Kube, obj: Manifest, spec: FineTuneJobSpec) -> Facts:
    namespace, fields = obj["metadata"]["namespace"], claims_of(spec)
    version = await find(kube, API_VERSION, "ModelVersion", namespace, version_name(spec))
    secrets = sorted({use.name for use in secrets_of(spec)})
    return Facts(
        namespace=namespace,
        uid=obj["metadata"]["uid"],
        claims={name: await find(kube, "v1", "PersistentVolumeClaim", namespace, name) for name in sorted(fields)},
        fields=fields,
        output_claim=output_path(spec).claim,
        secrets={name: await find(kube, "v1", "Secret", namespace, name) for name in secrets},
        version_name=version_name(spec),
        version_owner=None if version is None else registered_by(version) or "",
    )


async def _ask_progress(course: Course, config: OperatorConfig) -> Progress | None:
    if course.stage is not Stage.TRAIN or course.job is None or course.job.rank_zero is None:
        return None
    return await fetch_progress(course.job.rank_zero.ip or "", config.trainer_port)


async def _register(kube: Kube, obj: Manifest, seen: Situation) -> Situation:
    """Create the ModelVersion once. It never changes, so one of ours that is there is all there is to do."""
    name = version_name(seen.spec)
    existing = await find(kube, API_VERSION, "ModelVersion", obj["metadata"]["namespace"], name)
    if existing is not None:
        if registered_by(existing) == obj["metadata"]["uid"]:
            return replace(seen, registered=name)
        taken = version_exists(name)
        return replace(seen, failure=Failure(taken.reason, taken.message))
    end = seen.course.end_of(Stage.EXPORT)
    assert end is not None, "a complete course has seen its export"
    assert end.result.export is not None, "and what it made"
    version = build_model_version(
        obj,
        seen.spec,
        end.result.export,
        dataset_digest=seen.status.dataset.digest if seen.status.dataset else None,
        image=end.job.image,
        evaluation=seen.status.evaluation,
    )
    try:
        await kube.create(version)
    except (Invalid, Forbidden) as error:
        return replace(seen, refused=error.message)
    return replace(seen, registered=name)


async def _clean_up(
    kube: Kube, obj: Manifest, status: FineTuneJobStatus, *, children: Children, now: datetime
) -> Result:
    finished = parse_optional(status.completion_time)
    wanted = obj["spec"].get("ttlSecondsAfterFinished")
    seconds = wanted if isinstance(wanted, int) else None
    await execute(kube, plan_end(_owned(children), seconds, finished, now))
    left = ttl.seconds_left(seconds, finished, now)
    return Result(acknowledge(status, obj["metadata"]["generation"]).to_dict(), requeue_after=left or None)


def _owned(children: Children) -> tuple[Manifest, ...]:
    return (*children.jobs, *children.services, *children.config_maps, *children.network_policies)


def _next_look(
    spec: FineTuneJobSpec, status: FineTuneJobStatus, seen: Situation, config: OperatorConfig, now: datetime
) -> float | None:
    """Seconds to the next look, for what no watch announces."""
    if is_finished(status):
        return None
    waits: list[float | None] = []
    course = seen.course
    if not course.complete and not spec.suspend:  # else there is nothing to be judged
        waits.append(deadline.seconds_left(spec.active_deadline_seconds, counted_from(status), now))
    waits.append(seconds_to_pods(course.job, spec.num_nodes if course.stage is Stage.TRAIN else 1, now))
    if course.waits_for_result or course.repeat or (course.job and course.job.deleting):
        waits.append(_SOON_SECONDS)
    if status.stage is JobStage.TRAINING:
        waits.append(config.progress_interval)
    if seen.refused or status.start_time is None:
        waits.append(config.recheck_interval)
    return min((wait for wait in waits if wait is not None and wait > 0), default=None)
