"""traffic.gateways and traffic.hosts, resolved: the same for both kinds of Gateway."""

from typing import NamedTuple

from tunewright_api.traffic import Traffic
from tunewright_operator.manifests.common import Manifest
from tunewright_operator.manifests.naming import service_host


class Gateway(NamedTuple):
    """Where a Gateway is."""

    namespace: str
    name: str


def gateways(owner: Manifest, traffic: Traffic) -> list[Gateway]:
    """Each named Gateway once; NAME alone is in the service's own namespace."""
    found: dict[Gateway, None] = {}
    for text in traffic.gateways or ():
        namespace, _, name = text.rpartition("/")
        found[Gateway(namespace or owner["metadata"]["namespace"], name)] = None
    return list(found)


def outer_hosts(owner: Manifest, traffic: Traffic) -> list[str]:
    """The names that Gateways answer for: the service's own where none is given, never just any."""
    own = service_host(owner["metadata"]["namespace"], owner["metadata"]["name"])
    return list(dict.fromkeys(traffic.hosts or [own]))
