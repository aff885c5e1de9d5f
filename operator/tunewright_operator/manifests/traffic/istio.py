"""Istio: subsets of one Service, and the routes to them, with exact weights and copies.

Two VirtualServices carry the same routes. NAME is for clients inside the mesh and speaks of our own Service alone:
names that a user writes must never reach the mesh, where they could take the requests of somebody else's service.
NAME-gateways has these names, and holds only at the gateways, whose owners say which names they take.
"""

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import HEADER_REVISION, LABEL_REVISION
from tunewright_api.traffic import ConnectionPool, LoadBalancer, OutlierDetection, Retries, Traffic
from tunewright_operator.manifests.common import Manifest, child_metadata, owner_labels
from tunewright_operator.manifests.naming import child_name, service_host
from tunewright_operator.manifests.server import SERVICE_PORT
from tunewright_operator.manifests.traffic.gateways import gateways, outer_hosts
from tunewright_operator.manifests.traffic.service import build_service
from tunewright_operator.manifests.traffic.split import Split

_API = "networking.istio.io/v1"
_MESH = "mesh"
_BALANCERS = {
    LoadBalancer.LEAST_REQUEST: "LEAST_REQUEST",
    LoadBalancer.ROUND_ROBIN: "ROUND_ROBIN",
    LoadBalancer.RANDOM: "RANDOM",
}
# Envoy's words for attempts that have certainly not reached a model: generating twice costs twice. Istio's default
# would also try again after a 503, which may be the end of a stream.
_SAFE_TO_RETRY = "connect-failure,refused-stream,reset-before-request"
# An answer may take any time, so there is no timeout that would notice a dead node: TCP asks it whether it lives.
_KEEPALIVE = {"time": "60s", "interval": "10s", "probes": 3}


def build_routes(owner: Manifest, spec: InferenceServiceSpec, split: Split) -> tuple[Manifest, ...]:
    """The Service with all revisions, its subsets, and the routes to them."""
    namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"]
    everyone = child_name(name, "revisions")
    host = service_host(namespace, everyone)
    rules = _rules(spec.traffic, split, host)
    routes = [_virtual_service(owner, name, [service_host(namespace, name)], [_MESH], rules)]
    if entries := gateways(owner, spec.traffic):
        hosts, names = outer_hosts(owner, spec.traffic), [f"{entry.namespace}/{entry.name}" for entry in entries]
        routes.append(_virtual_service(owner, child_name(name, "gateways"), hosts, names, rules))
    return (
        build_service(owner, everyone, owner_labels(owner)),
        _destination_rule(owner, spec.traffic, split, host),
        *routes,
    )


def _virtual_service(
    owner: Manifest, name: str, hosts: list[str], entries: list[str], rules: list[Manifest]
) -> Manifest:
    return {
        "apiVersion": _API,
        "kind": "VirtualService",
        "metadata": child_metadata(owner, name),
        "spec": {"hosts": hosts, "gateways": entries, "http": rules},
    }


def _rules(traffic: Traffic, split: Split, host: str) -> list[Manifest]:
    """A rule for each revision that a header names, then the one with the weights."""
    # Without a timeout Istio sets none; 0s is what its schema refuses.
    limits = {**({"timeout": traffic.timeout} if traffic.timeout else {}), "retries": _retries(traffic.retries)}
    named = [
        {
            "name": f"revision-{revision}",
            "match": [{"headers": {HEADER_REVISION: {"exact": revision}}}],
            "route": [{"destination": _subset(host, revision)}],
            **limits,
        }
        for revision in split.named
    ]
    shares = [{"destination": _subset(host, revision), "weight": percent} for revision, percent in split.shares]
    return [*named, {"name": "weights", "route": shares, **_mirror(split, host), **limits}]


def _subset(host: str, revision: str) -> Manifest:
    return {"host": host, "subset": revision, "port": {"number": SERVICE_PORT}}


def _mirror(split: Split, host: str) -> Manifest:
    if split.mirror is None:
        return {}
    return {"mirror": _subset(host, split.mirror), "mirrorPercentage": {"value": split.mirror_weight}}


def _retries(retries: Retries | None) -> Manifest:
    attempts = (retries or Retries()).attempts
    return {"attempts": attempts, "retryOn": _SAFE_TO_RETRY} if attempts else {"attempts": 0}


def _destination_rule(owner: Manifest, traffic: Traffic, split: Split, host: str) -> Manifest:
    return {
        "apiVersion": _API,
        "kind": "DestinationRule",
        "metadata": child_metadata(owner, owner["metadata"]["name"]),
        "spec": {
            "host": host,
            "trafficPolicy": {
                "connectionPool": _connection_pool(traffic.connection_pool or ConnectionPool()),
                "outlierDetection": _outlier_detection(traffic.outlier_detection or OutlierDetection()),
                "loadBalancer": _load_balancer(traffic),
            },
            "subsets": [{"name": revision, "labels": {LABEL_REVISION: revision}} for revision in split.named],
        },
    }


def _connection_pool(pool: ConnectionPool) -> Manifest:
    """What is absent is unlimited, as Istio has it. The limit of HTTP/2 requests holds for HTTP/1.1, too."""
    tcp = {"maxConnections": pool.max_connections, "connectTimeout": pool.connect_timeout, "tcpKeepalive": _KEEPALIVE}
    http = {"http1MaxPendingRequests": pool.max_pending_requests, "http2MaxRequests": pool.max_requests}
    limits = {"tcp": _present(tcp), "http": _present(http)}
    return {part: values for part, values in limits.items() if values}


def _outlier_detection(detection: OutlierDetection) -> Manifest:
    return {
        "consecutive5xxErrors": detection.consecutive_errors,
        "interval": detection.interval,
        "baseEjectionTime": detection.base_ejection_time,
        "maxEjectionPercent": detection.max_ejection_percent,
    }


def _load_balancer(traffic: Traffic) -> Manifest:
    """All pods are equal. Istio would prefer those of the client's zone as soon as outliers are looked for, and leave
    the GPUs of the other zones idle."""
    if traffic.hash_header:
        choice: Manifest = {"consistentHash": {"httpHeaderName": traffic.hash_header}}
    else:
        choice = {"simple": _BALANCERS[traffic.load_balancer or LoadBalancer.LEAST_REQUEST]}
    return {**choice, "localityLbSetting": {"enabled": False}}


def _present(values: Manifest) -> Manifest:
    return {name: value for name, value in values.items() if value is not None}
