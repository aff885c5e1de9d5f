"""ModelVersion: verify the artifact once, and report the decision.

The decision itself is a person's: the operator reads `spec.approval` and has no permission to write it.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from tunewright_api.modelversion import ModelVersionSpec, ModelVersionStatus
from tunewright_api.uris import parse_pvc
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.manifests.verify import build_verify_config, build_verify_job
from tunewright_operator.observe.verification import JobState, Verification, observe_verification
from tunewright_operator.plan import Step, plan
from tunewright_operator.reconcile.execute import execute
from tunewright_operator.reconcile.lookup import claim_exists
from tunewright_operator.reconcile.result import Children, Result
from tunewright_operator.status.modelversion import Version, compute_invalid_status, compute_status
from tunewright_operator.status.parsing import explain

# The Job goes once the status that carries its result is stored, which the next reconcile sees.
CLEANUP_SECONDS = 1.0


async def reconcile(kube: Kube, config: OperatorConfig, obj: Manifest, children: Children, now: datetime) -> Result:
    """Move one step: create the verification, read its result, or remove it once its result is in status."""
    metadata = obj["metadata"]
    previous = ModelVersionStatus.model_validate(obj.get("status") or {})
    try:
        spec = ModelVersionSpec.model_validate(obj["spec"])
    except ValidationError as error:
        status = compute_invalid_status(metadata["generation"], previous, explain(error), now)
        return Result(status.to_dict())
    version = Version(metadata["namespace"], metadata["name"], metadata["generation"], spec, previous)

    seen = await _observe(kube, version, children)
    lost = result_is_lost(config, version, seen, now)
    step = plan_repetition(children) if lost else plan_verification(config, obj, version, seen, children)
    refused = await execute(kube, step)
    if refused:
        seen = replace(seen, refused=refused.message, refused_reason=refused.reason or seen.refused_reason)
    status = compute_status(version, seen, now)
    return Result(status.to_dict(), requeue_after=_requeue_after(config, seen, status, children))


def _requeue_after(
    config: OperatorConfig, seen: Verification, status: ModelVersionStatus, children: Children
) -> float | None:
    """Nothing wakes us when a claim appears or a quota is raised."""
    if children.jobs and (status.verified_digest or (seen.job is JobState.COMPLETE and seen.digest is None)):
        return CLEANUP_SECONDS
    return config.recheck_interval if seen.refused or not seen.claim_exists else None


async def _observe(kube: Kube, version: Version, children: Children) -> Verification:
    claim = version.verified or await claim_exists(kube, version.namespace, parse_pvc(version.spec.artifact.uri).claim)
    return observe_verification(children.jobs, children.pods, claim_exists=claim)


def result_is_lost(config: OperatorConfig, version: Version, seen: Verification, now: datetime) -> bool:
    """Whether the Job succeeded and its pod went before anybody read what it found; separate watches show the two."""
    if version.verified or seen.job is not JobState.COMPLETE or seen.digest is not None or seen.ended is None:
        return False
    return now - seen.ended > timedelta(seconds=config.result_grace)


def plan_repetition(children: Children) -> Step:
    """Away with a Job whose result cannot be read any more: the next reconcile verifies again."""
    return plan((), (), prune=children.jobs)


def plan_verification(
    config: OperatorConfig, obj: Manifest, version: Version, seen: Verification, children: Children
) -> Step:
    """Configuration and Job while it is not verified; neither once that is in status.

    A Job is never applied again: its template is immutable, and a failed one stays as the record of its failure until
    somebody deletes it to verify again.
    """
    existing = (*children.config_maps, *children.jobs)
    if version.verified:
        return plan((), existing, prune=existing)
    desired = [build_verify_config(obj, version.spec)]
    if seen.job is JobState.ABSENT and seen.claim_exists:
        desired.append(build_verify_job(obj, version.spec, config))
    return plan(desired, existing)
