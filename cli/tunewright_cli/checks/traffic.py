"""Who splits the traffic: the mesh or the gateway that services ask for."""

from tunewright_cli.chain.states import condition_status
from tunewright_cli.checks.finding import Finding, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot, full_name, join_names

ISTIO_GROUPS = ("networking.istio.io", "security.istio.io")
GATEWAY_GROUP = "gateway.networking.k8s.io"
_ISTIO_CONTROLLER = "istio.io/gateway-controller"


def istio_crds(snapshot: Snapshot) -> Finding | None:
    """A service asks for Istio, and its kinds are not there."""
    users = snapshot.services_by("Istio")
    if not users:
        return None
    if snapshot.groups.value is None:
        return unknown("Istio", "the API groups", snapshot.groups)
    missing = [group for group in ISTIO_GROUPS if group not in snapshot.groups.value]
    if not missing:
        return None
    sentence = f"{join_names(users)} asks for Istio, and the cluster does not know {' and '.join(missing)}"
    return broken("Istio", sentence, "install Istio (istioctl install), or set traffic.provider to another one")


def istiod(snapshot: Snapshot) -> Finding | None:
    """Without istiod no route reaches a proxy."""
    users = snapshot.services_by("Istio")
    if not users or snapshot.groups.value is None or ISTIO_GROUPS[0] not in snapshot.groups.value:
        return None
    found = snapshot.istiods.items
    if any(one.get("status", {}).get("availableReplicas") for one in found):
        return ok("Istio", f"istiod is available, and {join_names(users)} uses it")
    if found:
        space, name = full_name(found[0]).split("/")
        sentence = f"istiod ({space}/{name}) has no pod that is ready: routes stay as they were"
        return broken("Istio", sentence, f"kubectl -n {space} describe pods -l app=istiod")
    if snapshot.istiods.error:
        return unknown("Istio", "istiod", snapshot.istiods)
    if _istio_was_here(snapshot):
        sentence = "no Deployment istiod is in this cluster, and one outside of it has been at work"
        return warning("Istio", sentence, "if the control plane is remote, all is well; else istioctl install")
    sentence = f"{join_names(users)} asks for Istio, and no istiod runs: no route takes effect"
    return broken("Istio", sentence, "install Istio's control plane: istioctl install")


def _istio_was_here(snapshot: Snapshot) -> bool:
    """What an istiod writes into every cluster that it serves, from wherever it runs."""
    classes = [one for one in snapshot.gateway_classes.items if one["spec"].get("controllerName") == _ISTIO_CONTROLLER]
    return bool(snapshot.istio_roots.items or any(condition_status(one, "Accepted") == "True" for one in classes))


def gateway_api(snapshot: Snapshot) -> Finding | None:
    """A service asks for the Gateway API, and its kinds are not there."""
    users = snapshot.services_by("GatewayAPI")
    if not users:
        return None
    if snapshot.groups.value is None:
        return unknown("Gateway API", "the API groups", snapshot.groups)
    if GATEWAY_GROUP in snapshot.groups.value:
        return ok("Gateway API", f"installed, and {join_names(users)} uses it")
    sentence = f"{join_names(users)} asks for the Gateway API, and the cluster does not know {GATEWAY_GROUP}"
    return broken("Gateway API", sentence, "install its CRDs and a gateway, or set traffic.provider to another one")
