"""Istio: who may reach the pods, and how encrypted. The health port is open to everybody: the kubelet, Prometheus and
the operator ask there, and need not be in the mesh."""

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import PORT_SERVER, PORT_SERVER_HEALTH
from tunewright_api.traffic import Access, MutualTls
from tunewright_operator.manifests.common import Manifest, child_metadata, owner_labels

_API = "security.istio.io/v1"


def build_access(owner: Manifest, spec: InferenceServiceSpec, operator_namespace: str) -> tuple[Manifest, ...]:
    """PeerAuthentication, and an AuthorizationPolicy where access is limited."""
    authentication = _peer_authentication(owner, spec.traffic.mtls or MutualTls.STRICT)
    if spec.traffic.access is None:
        return (authentication,)
    return authentication, _authorization_policy(owner, spec.traffic.access, operator_namespace)


def _peer_authentication(owner: Manifest, mode: MutualTls) -> Manifest:
    """Without a mode of its own the workload has its namespace's."""
    own = {} if mode is MutualTls.UNSET else {"mtls": {"mode": mode.value.upper()}}
    return {
        "apiVersion": _API,
        "kind": "PeerAuthentication",
        "metadata": child_metadata(owner, owner["metadata"]["name"]),
        "spec": {
            "selector": {"matchLabels": owner_labels(owner)},
            **own,
            "portLevelMtls": {str(PORT_SERVER_HEALTH): {"mode": "PERMISSIVE"}},
        },
    }


def _authorization_policy(owner: Manifest, access: Access, operator_namespace: str) -> Manifest:
    """What no rule allows is refused. The operator asks a candidate its probes on the port of the API."""
    namespaces = list(dict.fromkeys([*(access.namespaces or ()), operator_namespace]))
    sources = [{"source": {"namespaces": namespaces}}]
    if access.principals:
        sources.append({"source": {"principals": access.principals}})
    return {
        "apiVersion": _API,
        "kind": "AuthorizationPolicy",
        "metadata": child_metadata(owner, owner["metadata"]["name"]),
        "spec": {
            "selector": {"matchLabels": owner_labels(owner)},
            "action": "ALLOW",
            "rules": [
                {"from": sources, "to": [{"operation": {"ports": [str(PORT_SERVER)]}}]},
                {"to": [{"operation": {"ports": [str(PORT_SERVER_HEALTH)]}}]},
            ],
        },
    }
