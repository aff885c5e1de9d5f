"""Readiness of an InferenceService: from the spec to an answer, then from the old revision to the new one."""

from tunewright_api.names import LABEL_VERSION
from tunewright_cli.chain.find import Objects
from tunewright_cli.chain.links import Links
from tunewright_cli.chain.model import Object
from tunewright_cli.chain.pods import is_ready, owner
from tunewright_cli.chain.service import steps_of
from tunewright_cli.chain.states import because, condition
from tunewright_cli.chain.waiting import next_verb
from tunewright_cli.kinds import Kind
from tunewright_cli.readiness.model import Outcome, Step, about_of, accepted_step, after, seen_step
from tunewright_cli.readiness.pods import running_step, started_step
from tunewright_cli.readiness.version import approved_step, verified_step

_SPEC_FIXES = {
    "IstioNotInstalled": "install Istio, or set traffic.provider to another one",
    "GatewayAPINotInstalled": "install the Gateway API's CRDs, or set traffic.provider to another one",
    "PrometheusNotConfigured": "set prometheus.url of the chart, or rollout.metrics: [] to judge without metrics",
    "ClaimNotFound": "create the claim, or restore it",
}
_HINT = "What to do: "


def service_steps(service: Object, objects: Objects) -> list[Step]:
    """The checks of a service, in order."""
    namespace, name = objects.namespace, service["metadata"]["name"]
    wants = Links(objects.jobs, objects.versions, objects.services).wanted_version(service)
    pods = [
        pod
        for pod in objects.pods
        if owner(pod) == (Kind.SERVICE.title, name) and pod["metadata"]["labels"].get(LABEL_VERSION, wants) == wants
    ]
    rejected = (service.get("status", {}).get("rejected") or {}).get("version") == wants
    steps = [
        seen_step(service),
        accepted_step(service, "the spec can be served", _spec_fix(service)),
        *_version_steps(service, wants, objects),
        _allowed_step(service),
    ]
    if not rejected:
        created = after(steps, _created_step(service, pods, wants))
        later = [
            started_step(pods, "its pods have started", namespace),
            running_step(pods, "its pods stay up", namespace, _hint(service)),
            _loaded_step(service, pods, wants),
        ]
        if created.outcome is not Outcome.PASSED:
            later = [Step(step.title, Outcome.OPEN) for step in later]
        steps.append(created)
        for step in later:
            steps.append(after(steps, step))
    steps.append(after(steps, _answers_step(service)))
    steps.append(_rollout_step(service, namespace))
    return steps


def _version_steps(service: Object, wants: str, objects: Objects) -> list[Step]:
    title, namespace = "its model version exists", objects.namespace
    alias, about = service["spec"]["model"].get("alias"), about_of(service)
    if not wants:
        message = f"no version, or more than one, of model {alias['modelName']} has the alias {alias['name']}"
        fix = f"kubectl -n {namespace} edit modelversion NAME: add {alias['name']} to spec.aliases of exactly one"
        return [Step(title, Outcome.FAILED, message, fix, about)]
    version = objects.versions.get(wants)
    if version is None:
        message = f"there is no ModelVersion {wants} in namespace {namespace}"
        fix = "wait for the job that registers it (tunewright get), or correct spec.model"
        return [Step(title, Outcome.WAITING, message, fix, about)]
    own = [pod for pod in objects.pods if owner(pod) == (Kind.VERSION.title, wants)]
    return [Step(title, Outcome.PASSED), verified_step(version, own, namespace), approved_step(version, namespace)]


def _allowed_step(service: Object) -> Step:
    """What the operator needs beside the version: the mesh, Prometheus, the claim."""
    title = "the cluster has what the spec needs"
    for kind in ("Stalled", "Reconciling", "Ready"):
        found = condition(service, kind)
        if found and found["status"] != ("True" if kind == "Ready" else "False") and found["reason"] in _SPEC_FIXES:
            fix = _SPEC_FIXES[found["reason"]]
            return Step(title, Outcome.FAILED, found.get("message", ""), fix, about_of(service))
    return Step(title, Outcome.PASSED)


def _created_step(service: Object, pods: list[Object], wants: str) -> Step:
    title = "its pods are created"
    roles = [role for role in ("stable", "candidate") if wants and _version_of(service, role) == wants]
    answering = any(service["status"][role].get("readyReplicas") for role in roles)
    if pods or answering or service["spec"].get("replicas") == 0:
        return Step(title, Outcome.PASSED)
    refused = condition(service, "Reconciling") or condition(service, "Ready") or {}
    fix = "wait; a quota, Pod Security or the operator's role may refuse them, which the message tells"
    return Step(title, Outcome.WAITING, refused.get("message", ""), fix, about_of(service))


def _loaded_step(service: Object, pods: list[Object], wants: str) -> Step:
    title = "every pod has loaded the model"
    ready = sum(map(is_ready, pods))
    role = "candidate" if _version_of(service, "candidate") == wants else "stable"
    revision = service.get("status", {}).get(role) or {}
    wanted = revision.get("replicas", len(pods))
    if revision.get("readyReplicas", ready) >= wanted:
        return Step(title, Outcome.PASSED)
    slow = next((pod for pod in pods if not is_ready(pod)), None)
    message = f"{revision.get('readyReplicas', ready)} of {wanted} pods answered a completion"
    name = slow["metadata"]["name"] if slow else ""
    about = (*about_of(service), *((("Pod", name),) if name else ()))
    return Step(title, Outcome.WAITING, message, "wait: large models take minutes to load", about, name)


def _answers_step(service: Object) -> Step:
    title = "a completion comes back"
    found = condition(service, "Ready")
    if found and found["status"] == "True":
        return Step(title, Outcome.PASSED)
    if found is None and service["spec"].get("replicas") == 0:
        return Step(title, Outcome.WAITING, "it is scaled to zero", "set spec.replicas", about_of(service))
    stalled = condition(service, "Stalled")
    message = ((stalled or found) or {}).get("message", "")
    outcome = Outcome.FAILED if stalled else Outcome.WAITING
    return Step(title, outcome, message, _hint(service) or "look at the checks above", about_of(service))


def _rollout_step(service: Object, namespace: str) -> Step:
    """Whether the revision that the spec asks for is the one that answers, or is on its way to it."""
    title, name, about = "the newest revision answers", service["metadata"]["name"], about_of(service)
    status = service.get("status", {})
    if rejected := status.get("rejected"):
        message = f"{rejected['version']} was rolled back: {because(rejected)}"
        fix = f"change spec.model (or move the alias), or correct the cause and: tunewright retry {name} -n {namespace}"
        return Step(title, Outcome.FAILED, message, fix, about)
    candidate = status.get("candidate")
    if not candidate:
        return Step(title, Outcome.PASSED if status.get("stable") else Outcome.OPEN)
    share = f"{candidate['version']} has {candidate.get('weight', 0)} percent of the traffic"
    if candidate.get("paused"):
        return Step(title, Outcome.WAITING, f"{share} and is paused", f"tunewright resume {name} -n {namespace}", about)
    if candidate.get("phase") == "Waiting":
        rollout = service["spec"].get("rollout") or {}
        verb = next_verb(
            weight=candidate.get("weight", 0),
            steps=steps_of(rollout),
            gates=rollout.get("manualGates") or (),
            opened=candidate.get("openedGates") or (),
            failed=(status.get("analysis") or {}).get("verdict") == "Fail",
        )
        if not verb:
            fix = f"wait for the next check, or give up: tunewright abort {name} -n {namespace}"
            return Step(title, Outcome.WAITING, f"{share}, and its newest check failed", fix, about)
        fix = f"tunewright {verb} {name} -n {namespace}"
        return Step(title, Outcome.WAITING, f"{share} and waits for a person", fix, about)
    fix = f"wait: it goes on by itself; tunewright get {name} -n {namespace} -w shows how"
    return Step(title, Outcome.WAITING, f"{share}, phase {candidate.get('phase')}", fix, about)


def _version_of(service: Object, role: str) -> str:
    return str((service.get("status", {}).get(role) or {}).get("version") or "")


def _spec_fix(service: Object) -> str:
    found = condition(service, "Accepted") or {}
    return _SPEC_FIXES.get(found.get("reason", ""), "correct the spec as the message says")


def _hint(service: Object) -> str:
    """What the operator says to do about the newest failure."""
    hint = str((service.get("status", {}).get("lastFailure") or {}).get("hint") or "")
    return hint.partition(_HINT)[2]
