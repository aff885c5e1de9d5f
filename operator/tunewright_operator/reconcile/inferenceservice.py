"""InferenceService: serve one approved, verified ModelVersion, and roll over to the next without a gap."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from tunewright_api.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import LABEL_REVISION
from tunewright_api.uris import parse_pvc
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.manifests.server import (
    Revision,
    build_revision,
    build_server,
    build_service,
    desired_replicas,
)
from tunewright_operator.observe.revisions import observe_serving
from tunewright_operator.plan import Step, plan
from tunewright_operator.policies.rollout import Rollout, decide
from tunewright_operator.policies.servable import Refusal, claim_refusal, name_refusal, refusal
from tunewright_operator.reconcile.execute import execute
from tunewright_operator.reconcile.lookup import claim_exists, find_versions
from tunewright_operator.reconcile.result import Children, Result
from tunewright_operator.status.inferenceservice import Situation, compute_status, find_gap
from tunewright_operator.status.parsing import explain

# A change of the version that the spec names wakes us. The version of a revision that still serves may be another one,
# and a claim appears unannounced: config.recheck_interval is for these, and this for a lost watch.
_SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """What the spec asks for, or why it cannot be had."""

    refusal: Refusal | None
    replicas: int = 0
    revision: Revision | None = None
    manifests: tuple[Manifest, ...] = ()


async def reconcile(kube: Kube, config: OperatorConfig, obj: Manifest, children: Children, now: datetime) -> Result:
    """Move one step: start the revision of the spec, move the Service to it, remove what no longer answers."""
    metadata = obj["metadata"]
    previous = InferenceServiceStatus.model_validate(obj.get("status") or {})
    serving = observe_serving(children.deployments, children.pods, children.services)
    wanted = wanted_version(obj)
    running = {state.version for state in serving.revisions.values()}
    versions = await find_versions(kube, metadata["namespace"], running | ({wanted} if wanted else set()))

    refusals = {name: refusal(metadata["namespace"], name, version) for name, version in versions.items()}
    target = await _resolve(kube, config, obj, versions, refusals)
    withdrawn = frozenset(
        name for name, state in serving.revisions.items() if (no := refusals[state.version]) and no.withdraws
    )
    rollout = decide(target.revision.name if target.revision else None, serving, withdrawn)
    refused = await execute(kube, plan_serving(obj, target, rollout, withdrawn, children))

    seen = Situation(
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        previous=previous,
        refusal=target.refusal,
        target=target.revision,
        replicas=target.replicas,
        serving=serving,
        rollout=rollout,
        refused=refused.message if refused else "",
        refused_reason=(refused and refused.reason) or "ApplyRefused",
    )
    status = compute_status(seen, now)
    return Result(status.to_dict(), requeue_after=config.recheck_interval if find_gap(seen) else _SETTLED_SECONDS)


def wanted_version(obj: Manifest) -> str | None:
    """The ModelVersion that the spec names, even where the rest of the spec cannot be read."""
    try:
        name: str = obj["spec"]["model"]["versionRef"]["name"]
    except (KeyError, TypeError):
        return None
    return name


async def _resolve(
    kube: Kube,
    config: OperatorConfig,
    obj: Manifest,
    versions: dict[str, Manifest | None],
    refusals: dict[str, Refusal | None],
) -> Target:
    """Ordered: the spec parses, the name can be a Service, the version may be served, its claim exists."""
    namespace, service = obj["metadata"]["namespace"], obj["metadata"]["name"]
    try:
        spec = InferenceServiceSpec.model_validate(obj["spec"])
    except ValidationError as error:
        return Target(Refusal("InvalidSpec", explain(error), final=True, withdraws=False))
    name = spec.model.version_ref.name
    version = versions[name]
    refused = name_refusal(service) or refusals[name]
    if refused or version is None:
        return Target(refused, desired_replicas(spec))
    model = ModelVersionSpec.model_validate(version["spec"])
    if not await claim_exists(kube, namespace, parse_pvc(model.artifact.uri).claim):
        return Target(claim_refusal(namespace, model.artifact.uri), desired_replicas(spec))
    revision = build_revision(name, model, spec, config)
    return Target(None, desired_replicas(spec), revision, build_server(obj, spec, model, revision, config))


def plan_serving(
    obj: Manifest, target: Target, rollout: Rollout, withdrawn: frozenset[str], children: Children
) -> Step:
    """The end of withdrawn revisions; the Service, then the target's children; the end of revisions not needed.

    The Service comes first because its name may be taken: no GPU then loads a model that nobody can reach.
    """
    existing = (*children.config_maps, *children.deployments, *children.services)
    service = (build_service(obj, rollout.select),) if rollout.select else ()
    removed = [
        child for child in (*children.deployments, *children.config_maps) if _revision_of(child) in rollout.remove
    ]
    return plan(
        (*service, *target.manifests),
        existing,
        prune=[child for child in removed if _revision_of(child) not in withdrawn],
        withdraw=[child for child in removed if _revision_of(child) in withdrawn],
    )


def _revision_of(child: Manifest) -> str:
    label: str = (child["metadata"].get("labels") or {}).get(LABEL_REVISION, "")
    return label
