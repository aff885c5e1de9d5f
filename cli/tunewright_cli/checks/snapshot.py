"""All that the checks look at, read from the cluster once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tunewright_cli.chain.model import Object

OPERATOR_LABELS = {"app.kubernetes.io/name": "tunewright", "app.kubernetes.io/component": "operator"}


class Seen(NamedTuple):
    """What a look at the API gave. `error` tells why there is nothing; `denied`: the user may not look."""

    value: Any = None
    missing: bool = False
    error: str = ""
    denied: bool = False

    @property
    def items(self) -> list[Object]:
        """The objects of a list; none where they could not be read."""
        return list(self.value or ())


NOTHING = Seen()


@dataclass(frozen=True)
class Snapshot:
    """The cluster as the checks see it; lists are of all namespaces where the user may list them."""

    server: str = ""
    namespace: str = "default"
    unreachable: str = ""  # why no apiserver answers: the sentence, which ends with the fix
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    server_time: datetime | None = None
    version: Seen = NOTHING
    may_read: Mapping[str, Seen] = field(default_factory=dict)  # plural -> whether the user may list it
    crds: Mapping[str, Seen] = field(default_factory=dict)  # plural -> the CRD in the cluster
    expected_crds: Mapping[str, Object] = field(default_factory=dict)  # plural -> the CRD of this version
    operators: Seen = NOTHING  # Deployments
    operator_pods: Seen = NOTHING
    denied: Seen = NOTHING  # what the operator's account lacks: `patch networking.istio.io/virtualservices`
    policy: Seen = NOTHING
    binding: Seen = NOTHING
    roles: Seen = NOTHING
    role_bindings: Seen = NOTHING
    jobs: Seen = NOTHING
    versions: Seen = NOTHING
    services: Seen = NOTHING
    groups: Seen = NOTHING  # names of API groups
    istiods: Seen = NOTHING  # Deployments
    istio_roots: Seen = NOTHING  # ConfigMaps that an istiod writes into each namespace
    gateway_classes: Seen = NOTHING
    istio_cni: Seen = NOTHING  # DaemonSets
    prometheus: Seen = NOTHING  # its /-/ready through the apiserver
    storage_classes: Seen = NOTHING
    claims: Seen = NOTHING
    nodes: Seen = NOTHING
    namespaces: Seen = NOTHING

    @property
    def operator(self) -> Object | None:
        """The operator's Deployment."""
        return self.operators.items[0] if self.operators.items else None

    @property
    def operator_env(self) -> dict[str, str]:
        """Settings of the operator that are written in its Deployment."""
        if self.operator is None:
            return {}
        return environment(self.operator)

    def services_by(self, provider: str) -> list[str]:
        """Services whose traffic this provider splits, as NAMESPACE/NAME."""
        return [full_name(one) for one in self.services.items if provider_of(one) == provider]


def environment(deployment: Object) -> dict[str, str]:
    """Variables of a Deployment's first container that have a value."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return {one["name"]: one.get("value") or "" for one in container.get("env") or ()}


def provider_of(service: Object) -> str:
    """traffic.provider of an InferenceService."""
    return str((service["spec"].get("traffic") or {}).get("provider") or "None")


def full_name(item: Object) -> str:
    """NAMESPACE/NAME."""
    return f"{item['metadata'].get('namespace')}/{item['metadata']['name']}"


def join_names(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
