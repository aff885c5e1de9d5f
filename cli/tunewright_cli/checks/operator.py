"""The operator: is it there, does it run, may it do its work, does it look where the objects are."""

from datetime import timedelta

from tunewright_cli.chain.model import Object, Pod
from tunewright_cli.chain.pods import describe_pods
from tunewright_cli.checks.finding import Finding, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import OPERATOR_LABELS, Snapshot, environment, full_name, join_names
from tunewright_cli.views.style import parse_time

_INSTALL = (
    "install the chart: helm install tunewright charts/tunewright -n tunewright-system --create-namespace, with "
    "--set images.operator=… --set images.trainer=… --set images.server=… for the images that you built"
)
_UNSEEN = timedelta(seconds=60)


def deployed(snapshot: Snapshot) -> Finding | None:
    """No Deployment, or two that take every decision twice."""
    if snapshot.operators.error:
        return unknown("Operator", "the operator's Deployment", snapshot.operators)
    found = snapshot.operators.items
    if not found:
        labels = ",".join(f"{key}={value}" for key, value in OPERATOR_LABELS.items())
        return broken("Operator", f"there is no Deployment with the labels {labels}", _INSTALL)
    if len(found) > 1:
        names = join_names([full_name(one) for one in found])
        return broken("Operator", f"{len(found)} operators run, and both decide: {names}", "helm uninstall all but one")
    if found[0]["spec"].get("replicas", 1) == 0:
        fix = f"kubectl -n {_space(found[0])} scale deployment {found[0]['metadata']['name']} --replicas=1"
        return broken("Operator", "the operator is scaled to zero", fix)
    return None


def available(snapshot: Snapshot) -> Finding | None:
    """The Deployment has no pod that is ready; what its pod says comes first."""
    deployment = snapshot.operator
    if deployment is None or deployment["spec"].get("replicas", 1) == 0:
        return None
    if deployment.get("status", {}).get("availableReplicas"):
        return ok("Operator", f"{full_name(deployment)} is available")
    for pod in describe_pods(snapshot.operator_pods.items):
        if not pod["ready"]:
            return broken("Operator", _trouble(pod), _fix(pod, _space(deployment)))
    return _podless(deployment)


def _podless(deployment: Object) -> Finding:
    """Nothing was created: the Deployment itself says why."""
    told = deployment.get("status", {}).get("conditions") or ()
    reasons = [one.get("message", "") for one in told if one["type"] == "ReplicaFailure" and one["status"] == "True"]
    name, space = deployment["metadata"]["name"], _space(deployment)
    sentence = f"the operator has no pod: {reasons[0]}" if reasons else "the operator has no pod yet"
    fix = "raise the quota, or correct what the admission of the namespace refuses" if reasons else ""
    return broken("Operator", sentence, fix or f"wait; kubectl -n {space} describe deployment {name} tells more")


def _trouble(pod: Pod) -> str:
    told = f": {pod['message']}" if pod["message"] else ""
    times = f" after {pod['restarts']} restarts" if pod["restarts"] else ""
    return f"the operator's pod {pod['name']} is not ready ({pod['status']}{times}){told}"


def _fix(pod: Pod, namespace: str) -> str:
    status = pod["status"]
    if status in {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}:
        return "correct images.operator of the chart, add images.pullSecrets, or put the image on the nodes"
    if status == "Unschedulable":
        return "free or add a node, or correct operator.resources, nodeSelector and tolerations of the chart"
    if status == "OOMKilled":
        return "raise operator.resources.limits.memory of the chart"
    previous = " --previous" if pod["restarts"] else ""
    return f"read its log: kubectl -n {namespace} logs {pod['name']}{previous}"


def role(snapshot: Snapshot) -> Finding | None:
    """The operator's account may not do what the operator does."""
    if snapshot.operator is None:
        return None
    if snapshot.denied.error:
        return unknown("Operator's role", "what the operator may do", snapshot.denied)
    if denied := snapshot.denied.value:
        fix = "upgrade the chart (helm upgrade): it binds the ClusterRole tunewright-operator"
        return broken("Operator's role", f"the operator may not {join_names(list(denied))}", fix)
    return ok("Operator's role", "it may do what it does")


def images_pinned(snapshot: Snapshot) -> Finding | None:
    """A tag can be moved: then the lineage of a model names an image that nobody can find again."""
    if snapshot.operator is None:
        return None
    env, container = snapshot.operator_env, snapshot.operator["spec"]["template"]["spec"]["containers"][0]
    images = {
        "operator": container.get("image", ""),
        "trainer": env.get("TUNEWRIGHT_TRAINER_IMAGE", ""),
        "server": env.get("TUNEWRIGHT_SERVER_IMAGE", ""),
    }
    loose = [f"images.{part}" for part, image in images.items() if "@sha256:" not in image]
    if not loose:
        return ok("Images", "all three are pinned by digest")
    verb = "has" if len(loose) == 1 else "have"
    return warning(
        "Images", f"{', '.join(loose)} {verb} no digest", "write REPOSITORY:TAG@sha256:DIGEST in the chart's values"
    )


def sees_objects(snapshot: Snapshot) -> Finding | None:
    """Objects that nobody has looked at for a while: their namespace is not watched."""
    if snapshot.operator is None or not snapshot.operator.get("status", {}).get("availableReplicas"):
        return None
    watched = [one for one in environment(snapshot.operator).get("TUNEWRIGHT_WATCH_NAMESPACES", "").split(",") if one]
    unseen = []
    for item in (*snapshot.jobs.items, *snapshot.versions.items, *snapshot.services.items):
        created = parse_time(item["metadata"].get("creationTimestamp"))
        old = created is not None and snapshot.now - created > _UNSEEN
        if old and item.get("status", {}).get("observedGeneration", -1) == -1:
            unseen.append(item)
    outside = sorted({_space(one) for one in unseen if watched and _space(one) not in watched})
    if outside:
        sentence = f"the operator does not watch {join_names(outside)}, where there are objects of its kinds"
        return broken("Namespaces", sentence, "add the namespace to operator.watchNamespaces of the chart")
    if unseen:
        sentence = f"the operator has not looked at {join_names([full_name(one) for one in unseen])}"
        name, space = snapshot.operator["metadata"]["name"], _space(snapshot.operator)
        return broken("Namespaces", sentence, f"read its log: kubectl -n {space} logs deployment/{name}")
    return None


def _space(item: Object) -> str:
    return str(item["metadata"].get("namespace") or "")
