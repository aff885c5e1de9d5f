"""Who splits the traffic: the mesh or the gateway that services ask for."""

from tunewright_cli.checks.finding import Finding, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot, full_name, join_names

ISTIO_GROUPS = ("networking.istio.io", "security.istio.io")
GATEWAY_GROUP = "gateway.networking.k8s.io"


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
    if snapshot.istio_roots.items:
        sentence = "no Deployment istiod is in this cluster, and one outside of it has been at work"
        return warning("Istio", sentence, "if the control plane is remote, all is well; else istioctl install")
    sentence = f"{join_names(users)} asks for Istio, and no istiod runs: no route takes effect"
    return broken("Istio", sentence, "install Istio's control plane: istioctl install")


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
