"""Namespaces where our objects live: what their admission lets in."""

from tunewright_cli.chain.model import Object
from tunewright_cli.checks.finding import Finding, broken, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot, join_names, provider_of

ENFORCE = "pod-security.kubernetes.io/enforce"
# Without the CNI plugin, Istio's init container changes the network of the pod, which these levels refuse.
_STRICT = {"baseline", "restricted"}


def pod_security(snapshot: Snapshot) -> Finding | None:
    """Our pods pass `restricted`: a namespace that enforces nothing lets in pods that would not."""
    spaces = _spaces(
        snapshot, {one["metadata"]["namespace"] for one in (*snapshot.jobs.items, *snapshot.services.items)}
    )
    loose = sorted(name for name, labels in spaces.items() if ENFORCE not in labels)
    if not loose:
        return None
    fix = f"kubectl label namespace {loose[0]} {ENFORCE}=restricted (Tunewright's own pods pass it)"
    return warning("Pod Security", f"{join_names(loose)} enforces no Pod Security level", fix)


def sidecars_admitted(snapshot: Snapshot) -> Finding | None:
    """Sidecars are injected into a namespace whose Pod Security refuses them."""
    users = {one["metadata"]["namespace"] for one in snapshot.services.items if provider_of(one) == "Istio"}
    if not users or snapshot.istio_cni.items:
        return None
    if snapshot.namespaces.error:
        return unknown("Pod Security", "namespaces", snapshot.namespaces)
    refused = sorted(
        name
        for name, labels in _spaces(snapshot, users).items()
        if _injected(labels) and labels.get(ENFORCE) in _STRICT
    )
    if not refused:
        return None
    sentence = f"{join_names(refused)} gets Istio sidecars, whose init container its Pod Security level refuses"
    return broken(
        "Pod Security", sentence, "install Istio's CNI plugin: istioctl install --set components.cni.enabled=true"
    )


def _spaces(snapshot: Snapshot, names: set[str]) -> dict[str, dict[str, str]]:
    """Labels of these namespaces."""
    return {_name(one): one["metadata"].get("labels") or {} for one in snapshot.namespaces.items if _name(one) in names}


def _injected(labels: dict[str, str]) -> bool:
    return labels.get("istio-injection") == "enabled" or "istio.io/rev" in labels


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])
