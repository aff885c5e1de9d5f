"""Gateway API: one HTTPRoute with weights, from the Gateways to the Services of the revisions."""

from tunewright_api.base import Duration, seconds
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import HEADER_REVISION
from tunewright_operator.manifests.common import Manifest, child_metadata
from tunewright_operator.manifests.naming import revision_name
from tunewright_operator.manifests.server import SERVICE_PORT
from tunewright_operator.manifests.traffic.gateways import gateways, outer_hosts
from tunewright_operator.manifests.traffic.split import Split


def build_route(owner: Manifest, spec: InferenceServiceSpec, split: Split) -> Manifest:
    """A rule for each revision that a header names, then the one with the weights."""
    name = owner["metadata"]["name"]
    # Without a timeout the implementation has one of its own; 0s is none.
    limits = {"timeouts": {"request": _duration(spec.traffic.timeout) if spec.traffic.timeout else "0s"}}
    named = [
        {
            "matches": [{"headers": [{"type": "Exact", "name": HEADER_REVISION, "value": revision}]}],
            "backendRefs": [_backend(name, revision)],
            **limits,
        }
        for revision in split.named
    ]
    shares = [{**_backend(name, revision), "weight": percent} for revision, percent in split.shares]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": child_metadata(owner, name),
        "spec": {
            "parentRefs": [
                {"namespace": gateway.namespace, "name": gateway.name} for gateway in gateways(owner, spec.traffic)
            ],
            "hostnames": outer_hosts(owner, spec.traffic),
            "rules": [*named, {"backendRefs": shares, **_mirror(name, split), **limits}],
        },
    }


def _backend(service: str, revision: str) -> Manifest:
    return {"name": revision_name(service, revision), "port": SERVICE_PORT}


def _mirror(service: str, split: Split) -> Manifest:
    if split.mirror is None:
        return {}
    copies = {"backendRef": _backend(service, split.mirror), "percent": split.mirror_weight}
    return {"filters": [{"type": "RequestMirror", "requestMirror": copies}]}


def _duration(duration: Duration) -> str:
    """As GEP-2257 writes it: at most five digits before each unit."""
    minutes, rest = divmod(seconds(duration), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((min(hours, 99_999), "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value)
