"""Pure builders of what leads requests to the revisions of an InferenceService, for each traffic.provider."""

from collections.abc import Mapping
from typing import Any

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.manifests.common import Manifest
from tunewright_operator.manifests.traffic.access import build_access
from tunewright_operator.manifests.traffic.gateway_api import build_route
from tunewright_operator.manifests.traffic.istio import build_routes
from tunewright_operator.manifests.traffic.service import build_services
from tunewright_operator.manifests.traffic.split import Split

__all__ = ["KINDS", "Split", "build_traffic", "lost", "shares"]

# (apiVersion, kind) of what a provider routes by besides Services.
KINDS: Mapping[TrafficProvider, tuple[tuple[str, str], ...]] = {
    TrafficProvider.ISTIO: (
        ("networking.istio.io/v1", "VirtualService"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
    ),
    TrafficProvider.GATEWAY_API: (("gateway.networking.k8s.io/v1", "HTTPRoute"),),
    TrafficProvider.NONE: (),
}


def build_traffic(
    owner: Manifest, spec: InferenceServiceSpec, split: Split, operator_namespace: str
) -> tuple[Manifest, ...]:
    """Everything that leads requests to pods, in the order of application: the Service first, whose name may be taken,
    and subsets before the routes that use them."""
    services = build_services(owner, spec, split)
    match spec.traffic.provider:
        case TrafficProvider.ISTIO:
            return *services, *build_access(owner, spec, operator_namespace), *build_routes(owner, spec, split)
        case TrafficProvider.GATEWAY_API:
            return *services, build_route(owner, spec, split)
        case TrafficProvider.NONE:
            return services


def shares(manifest: Manifest) -> Any:
    """Who gets requests, and copies of them, by this object of the traffic, as built or as stored; None for one that
    has no say in that. Comparable, no more: what somebody edited may have any shape."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] == "Service":
        return spec.get("selector")
    if manifest["kind"] not in {"VirtualService", "HTTPRoute"}:
        return None
    rule: Manifest = next(reversed(spec.get("http") or spec.get("rules") or ()), {})
    backends = rule.get("route") or rule.get("backendRefs") or ()
    copies = [
        rule.get("mirror"),
        *(part.get("requestMirror", {}).get("backendRef") for part in rule.get("filters") or ()),
    ]
    return (
        [(_target(backend.get("destination") or backend), backend.get("weight")) for backend in backends],
        [_target(copy) for copy in copies if copy],
    )


def _target(backend: Manifest) -> Any:
    return backend.get("subset") or backend.get("name")


def lost(spec: InferenceServiceSpec, split: Split, pods: Mapping[str, int]) -> str:
    """What the provider cannot do, for status.traffic.message; empty for Istio. `pods`: revision -> how many it has."""
    match spec.traffic.provider:
        case TrafficProvider.ISTIO:
            return ""
        case TrafficProvider.GATEWAY_API:
            return (
                "only requests that enter by a Gateway are shared by weight: those to the Service inside the cluster "
                "all go to the stable revision; retries, limits of connections, failing pods, mutual TLS and access "
                "are left to the Gateway"
            )
        case TrafficProvider.NONE:
            sharing = [pods.get(revision, 0) for revision, _ in split.shares]
            real = f", {100 * sharing[-1] / sum(sharing):.0f} percent instead of {split.weight}" if sum(sharing) else ""
            instead = real if len(sharing) > 1 else ""
            return (
                f"behind a plain Service a candidate's share of the requests is its share of the pods{instead}; there "
                "are no copies of requests, no choice of a revision by header, no timeouts, retries, limits of "
                "connections, mutual TLS or access rules: traffic.provider Istio has all of them"
            )
