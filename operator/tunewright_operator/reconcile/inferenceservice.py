"""InferenceService: serve one approved, verified ModelVersion, and move to the next as its rollout allows.

Each turn reads the world, decides with the pure planner, writes the decision to status and then carries it out. What
the traffic shall be follows from that status alone, so an operator that is killed in between goes on from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain

from pydantic import ValidationError

from tunewright_api.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import ANNOTATION_REQUEST, LABEL_REVISION
from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import Performance, TrafficStatus
from tunewright_api.traffic import Traffic, TrafficProvider
from tunewright_api.uris import parse_pvc
from tunewright_operator.clients.models import fetch_readiness
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.errors import NotFound
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.manifests.common import owner_labels
from tunewright_operator.manifests.server import (
    Revision,
    build_disruption_budget,
    build_revision,
    build_server,
    desired_replicas,
    scale_patch,
)
from tunewright_operator.manifests.traffic import KINDS, build_traffic, lost, shares
from tunewright_operator.observe.revisions import Serving, observe_serving, ready_pod
from tunewright_operator.observe.routes import find_refusal
from tunewright_operator.plan import Step, key, plan
from tunewright_operator.policies.rollout import (
    RolloutPlan,
    RolloutState,
    World,
    due_check,
    is_overdue,
    plan_rollout,
    read_state,
    restart_clocks,
)
from tunewright_operator.policies.servable import (
    Refusal,
    choose,
    claim_refusal,
    measure_refusal,
    name_refusal,
    provider_refusal,
    refusal,
)
from tunewright_operator.reconcile.execute import execute
from tunewright_operator.reconcile.lookup import claim_exists
from tunewright_operator.reconcile.measure import measure
from tunewright_operator.reconcile.result import Check, Children, Result
from tunewright_operator.status.inferenceservice import Situation, compute_status, find_gap
from tunewright_operator.status.parsing import explain


@dataclass(frozen=True)
class Target:
    """What the spec asks for, or why it cannot be had. `spec` is None where it cannot be read."""

    spec: InferenceServiceSpec | None
    refusal: Refusal | None
    revision: Revision | None = None
    model: ModelVersionSpec | None = None
    routable: bool = True  # the cluster knows the kinds that the provider routes by


async def reconcile(kube: Kube, config: OperatorConfig, obj: Manifest, children: Children, now: datetime) -> Result:
    """One turn."""
    previous = InferenceServiceStatus.model_validate(obj.get("status") or {})
    serving = observe_serving(children.deployments, children.pods, children.services)
    versions = {version["metadata"]["name"]: version for version in children.versions}
    target = await _resolve(kube, config, obj, versions)
    try:
        foreign = await _foreign_children(kube, obj, target.spec, previous)
    except NotFound:
        assert target.spec is not None
        no_mesh = provider_refusal(target.spec.traffic.provider)
        target, foreign = replace(target, refusal=no_mesh, revision=None, routable=False), ()

    state = read_state(previous, serving.selected)
    world = _observe_world(obj, target, serving, state, versions=versions, now=now)
    rollout = target.spec.rollout if target.spec else Rollout()
    decided = plan_rollout(state, rollout, world, children.check)
    moving = is_overdue(state, now) and serving.revisions.keys() - {state.stable}
    if moving and decided.state == state:
        made_up = plan_rollout(restart_clocks(state, now, serving.revisions.keys()), rollout, world)
        if _is_late(config, obj, target, made_up, (*children.services, *foreign)):
            decided = made_up
    step = plan_serving(config, obj, target, world=world, decided=decided, children=children, foreign=foreign)
    seen = Situation(
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        generation=obj["metadata"]["generation"],
        previous=previous,
        refusal=target.refusal,
        target=target.revision,
        replicas=world.replicas,
        serving=serving,
        rollout=rollout,
        decided=decided,
        withdrawn=world.withdrawn,
        traffic=_known_traffic(target.spec, previous),
        performance=previous.performance,
        route_refusal=find_refusal(foreign),
        leads=("Service", obj["metadata"]["name"]) in map(key, (*step.lead, *step.apply)),
    )
    status = compute_status(seen, now)
    announced = decided.state != state or seen.traffic != previous.traffic
    if announced and status.to_dict() != obj["status"]:
        await kube.patch_status(obj, status.to_dict())
        obj["status"] = status.to_dict()
    refused = await execute(kube, step)
    if refused:
        routes = {key(route): route for route in (*children.services, *foreign)}
        seen = replace(
            seen,
            refused=refused.message,
            refused_reason=refused.reason or "ApplyRefused",
            unmoved=_moves([one for one in refused.left if key(one) in routes], tuple(routes.values())),
        )
    elif target.routable:
        seen = replace(seen, traffic=_traffic_status(target.spec, decided) or seen.traffic)
    # Only now: no decision waits for a pod that does not answer.
    seen = replace(seen, performance=await _performance(children, decided, previous))
    status = compute_status(seen, now)
    check = None
    if decided.state == state and target.spec and (window := due_check(state, rollout, world)):
        candidate = serving.revisions[window.revision]
        look = partial(
            measure, kube, config, obj, target.spec, children=children, window=window, candidate=candidate, now=now
        )
        check = Check((window.revision, window.weight, previous.candidate and previous.candidate.checked_at), look)
    # What is due while a check is made is the check itself.
    due = None if check else decided.requeue_after
    return Result(status.to_dict(), _requeue(config, seen, due), check)


def _is_late(
    config: OperatorConfig, obj: Manifest, target: Target, decided: RolloutPlan, routes: Sequence[Manifest]
) -> bool:
    """Whether the traffic is not what was decided: the operator ended, or was refused, in between.

    What is measured then would be the weights of before, and what left has been left by nobody yet.
    """
    if target.spec is None or decided.split is None or not target.routable:
        return False
    return _moves(plan(build_traffic(obj, target.spec, decided.split, config.namespace), routes).apply, routes)


def _moves(manifests: Sequence[Manifest], routes: Sequence[Manifest]) -> bool:
    """Whether one of the manifests gives requests to others than the stored object does."""
    stored = {key(route): shares(route) for route in routes}
    return any(shares(manifest) != stored.get(key(manifest)) for manifest in manifests)


def _requeue(config: OperatorConfig, seen: Situation, due: float | None) -> float:
    waiting = config.recheck_interval if find_gap(seen) else config.settled_interval
    return waiting if due is None else min(waiting, due)


async def _resolve(kube: Kube, config: OperatorConfig, obj: Manifest, versions: dict[str, Manifest]) -> Target:
    """Ordered: the spec parses, the name can be a Service, the rollout can be judged, the version may be served, its
    claim exists."""
    namespace, service = obj["metadata"]["namespace"], obj["metadata"]["name"]
    try:
        spec = InferenceServiceSpec.model_validate(obj["spec"])
    except ValidationError as error:
        return Target(None, Refusal("InvalidSpec", explain(error), final=True, withdraws=False))
    chosen = choose(spec.model, versions, namespace)
    if isinstance(chosen, Refusal):
        return Target(spec, chosen)
    version = versions.get(chosen)
    refused = (
        name_refusal(service) or measure_refusal(spec, config.prometheus_url) or refusal(namespace, chosen, version)
    )
    if refused or version is None:
        return Target(spec, refused)
    model = ModelVersionSpec.model_validate(version["spec"])
    if not await claim_exists(kube, namespace, parse_pvc(model.artifact.uri).claim):
        return Target(spec, claim_refusal(namespace, model.artifact.uri))
    return Target(spec, None, build_revision(chosen, model, spec, config), model)


def _observe_world(
    obj: Manifest,
    target: Target,
    serving: Serving,
    state: RolloutState,
    *,
    versions: dict[str, Manifest],
    now: datetime,
) -> World:
    namespace = obj["metadata"]["namespace"]
    served = {name: revision.version for name, revision in serving.revisions.items()}
    if state.candidate:  # its pods need not be there yet
        served[state.candidate.revision] = state.candidate.version
    refusals = {name: refusal(namespace, version, versions.get(version)) for name, version in served.items()}
    withdrawn = {name: no.message for name, no in refusals.items() if no and no.withdraws}
    return World(
        now=now,
        target=target.revision,
        revisions=serving.revisions,
        withdrawn=frozenset(withdrawn),
        withdrawn_reasons=withdrawn,
        replicas=desired_replicas(target.spec) if target.spec else 1,
        provider=target.spec.traffic.provider if target.spec else TrafficProvider.NONE,
        request=(obj["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST),
    )


async def _foreign_children(
    kube: Kube, obj: Manifest, spec: InferenceServiceSpec | None, previous: InferenceServiceStatus
) -> tuple[Manifest, ...]:
    """Objects of the mesh that belong to this service. They are listed, not watched: their kinds may be installed, or
    not, at any time. Raises NotFound where the provider of the spec is not installed."""
    if spec is None:
        return ()
    found: list[Manifest] = []
    own = KINDS[spec.traffic.provider]
    for kind in own:
        found += await kube.list_by_labels(*kind, obj["metadata"]["namespace"], owner_labels(obj))
    # Where status names no provider, any may have left something.
    before = KINDS[previous.traffic.provider] if previous.traffic else tuple(chain(*KINDS.values()))
    for kind in before:
        if kind not in own:
            try:
                found += await kube.list_by_labels(*kind, obj["metadata"]["namespace"], owner_labels(obj))
            except NotFound:
                continue  # it is not installed, or was uninstalled, and its objects went with it
    uid = obj["metadata"]["uid"]
    return tuple(
        child
        for child in found
        if any(reference["uid"] == uid for reference in child["metadata"].get("ownerReferences") or ())
    )


async def _performance(
    children: Children, decided: RolloutPlan, previous: InferenceServiceStatus
) -> Performance | None:
    """What the newest revision with a ready pod measured at its start; asked once."""
    state = decided.state
    for revision in (state.candidate.revision if state.candidate else None, state.stable):
        pod = ready_pod(children.pods, revision) if revision else None
        if revision is None or pod is None:
            continue
        if previous.performance and previous.performance.revision == revision:
            break
        answer = await fetch_readiness(pod["status"]["podIP"])
        if answer and answer.performance:
            return Performance(revision=revision, **answer.performance.model_dump(by_alias=False))
        break
    return previous.performance


def _known_traffic(spec: InferenceServiceSpec | None, previous: InferenceServiceStatus) -> TrafficStatus | None:
    """What status says of the traffic until all of this turn is carried out: nothing while another provider takes over,
    so that what either of them has made is looked for until it is gone, or all there."""
    known = previous.traffic
    return known if known and (spec is None or spec.traffic.provider is known.provider) else None


def _traffic_status(spec: InferenceServiceSpec | None, decided: RolloutPlan) -> TrafficStatus | None:
    if spec is None or decided.split is None:
        return None
    return TrafficStatus(provider=spec.traffic.provider, message=lost(spec, decided.split, decided.replicas))


def plan_serving(
    config: OperatorConfig,
    obj: Manifest,
    target: Target,
    *,
    world: World,
    decided: RolloutPlan,
    children: Children,
    foreign: Sequence[Manifest],
) -> Step:
    """The end of withdrawn revisions; the traffic, then the pods of the target; the end of what is not needed.

    The Service comes first because its name may be taken: no GPU then loads a model that nobody can reach.
    """
    removed = [
        child for child in (*children.deployments, *children.config_maps) if _revision_of(child) in decided.remove
    ]
    withdraw = [child for child in removed if _revision_of(child) in world.withdrawn]
    if target.spec is None:
        return plan((), (), withdraw=withdraw)
    # Without the mesh of the spec its Service answers, as a plain one.
    spec = target.spec if target.routable else target.spec.model_copy(update={"traffic": Traffic()})
    routes = build_traffic(obj, spec, decided.split, config.namespace) if decided.split else ()
    budget = (build_disruption_budget(obj),) if decided.split else ()
    wanted = {key(manifest) for manifest in (*routes, *budget)}
    revision = target.revision
    pods: tuple[Manifest, ...] = ()
    if revision is not None and target.model is not None and revision.name in decided.replicas:
        replicas = decided.replicas[revision.name]
        pods = build_server(obj, target.spec, target.model, revision, config, replicas)
    movable = (*children.services, *children.disruption_budgets, *foreign)
    step = plan(
        (*routes, *pods, *budget),
        (*movable, *children.config_maps, *children.deployments),
        prune=[
            *(child for child in removed if child not in withdraw),
            *(child for child in movable if key(child) not in wanted),
        ],
        withdraw=withdraw,
    )
    lead = _lead_away(step.apply, routes, movable, decided, withdraw)
    applied = {key(manifest) for manifest in step.apply}
    scaled = [
        (deployment, body)
        for deployment in children.deployments
        if key(deployment) not in applied
        and (pods_wanted := decided.replicas.get(_revision_of(deployment))) is not None
        and (body := scale_patch(deployment, pods_wanted))
    ]
    return replace(
        step,
        patch=tuple(scaled),
        lead=lead,
        apply=tuple(manifest for manifest in step.apply if manifest not in lead),
    )


def _lead_away(
    stale: Sequence[Manifest],
    routes: Sequence[Manifest],
    stored: Sequence[Manifest],
    decided: RolloutPlan,
    withdraw: Sequence[Manifest],
) -> tuple[Manifest, ...]:
    """The routes to write before all else, so that nobody is sent to a revision that ends, or that shall get nothing
    any more: neither may wait for an object that the apiserver refuses. A route goes before the subset that it uses."""
    back = decided.split is not None and not decided.split.weight
    ours, there = {key(route) for route in routes}, {key(child) for child in stored}
    return tuple(
        manifest
        for manifest in reversed(stale)
        if key(manifest) in ours & there and (withdraw or (back and _moves([manifest], stored)))
    )


def _revision_of(child: Manifest) -> str:
    label: str = (child["metadata"].get("labels") or {}).get(LABEL_REVISION, "")
    return label
