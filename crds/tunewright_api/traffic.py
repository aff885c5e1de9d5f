"""spec.traffic of an InferenceService: who routes requests to its revisions, and how."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import Duration, Model, Name, Rule


class TrafficProvider(StrEnum):
    """What splits the traffic between two revisions."""

    ISTIO = "Istio"
    GATEWAY_API = "GatewayAPI"
    NONE = "None"


class LoadBalancer(StrEnum):
    """How a pod is chosen among those of a revision."""

    LEAST_REQUEST = "LeastRequest"
    ROUND_ROBIN = "RoundRobin"
    RANDOM = "Random"


class MutualTls(StrEnum):
    """Whether pods take requests from outside the mesh."""

    STRICT = "Strict"
    PERMISSIVE = "Permissive"
    UNSET = "Unset"


class Retries(Model):
    """Second attempts, only where the first one has certainly not reached a model: no connection, or a refused or
    reset one before the request was sent."""

    attempts: int = Field(default=2, ge=0, le=10, description="Further attempts; 0 for none.")


class ConnectionPool(Model):
    """Limits of one client's proxy (its sidecar, or a pod of a gateway) towards all pods of one revision."""

    max_connections: int | None = Field(
        default=None, ge=1, le=1_000_000, description="TCP connections of one proxy to a revision."
    )
    max_pending_requests: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests that wait in one proxy for a connection; more get 503."
    )
    max_requests: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests under way from one proxy to a revision; more get 503."
    )
    connect_timeout: Duration | None = Field(default=None, description="Limit of a TCP connect, such as 5s.")


class OutlierDetection(Model):
    """A pod that fails again and again gets no requests for a while."""

    consecutive_errors: int = Field(default=5, ge=1, le=1000, description="5xx answers in a row that eject a pod.")
    interval: Duration = Field(default="10s", description="Time between two looks.")
    base_ejection_time: Duration = Field(default="30s", description="First ejection; each further one is longer.")
    max_ejection_percent: int = Field(default=50, ge=0, le=100, description="Share of pods that may be ejected.")


class Access(Model):
    """Who may send requests; everybody else gets 403. It needs the identities that mutual TLS gives."""

    cel: ClassVar = (
        Rule(
            "has(self.namespaces) || has(self.principals)",
            "access: name at least one entry of namespaces or principals, or leave access out to allow everybody",
        ),
    )

    namespaces: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, description="Namespaces whose pods may call."
    )
    principals: list[Annotated[str, StringConstraints(min_length=1, max_length=253)]] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Service accounts that may call, such as cluster.local/ns/shop/sa/web.",
    )


HostName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
GatewayName = Annotated[
    str,
    StringConstraints(max_length=127, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"),
]
# The default of the whole object is checked before its fields have theirs.
_PROVIDER = "(has(self.provider) ? self.provider : 'None')"
_ISTIO_ONLY = ("loadBalancer", "hashHeader", "connectionPool", "outlierDetection", "mtls", "access", "retries")


class Traffic(Model):
    """How requests reach the revisions."""

    cel: ClassVar = (
        Rule(
            f"{_PROVIDER} != 'GatewayAPI' || has(self.gateways)",
            "traffic.gateways: name the Gateway that routes to this service, as NAMESPACE/NAME",
        ),
        Rule(
            f"{_PROVIDER} != 'None' || !(has(self.gateways) || has(self.hosts) || has(self.timeout))",
            "traffic.gateways, hosts and timeout need traffic.provider Istio or GatewayAPI",
        ),
        Rule(
            f"{_PROVIDER} == 'Istio' || !(" + " || ".join(f"has(self.{name})" for name in _ISTIO_ONLY) + ")",
            f"traffic.{', '.join(_ISTIO_ONLY[:-1])} and {_ISTIO_ONLY[-1]} need traffic.provider Istio",
        ),
        Rule(
            "!has(self.hosts) || has(self.gateways)",
            "traffic.hosts are names outside the cluster: name in traffic.gateways the gateways that answer for them",
        ),
        Rule(
            "!(has(self.hashHeader) && has(self.loadBalancer))",
            "traffic.hashHeader chooses the pod by itself: remove loadBalancer",
        ),
    )

    provider: TrafficProvider = Field(
        default=TrafficProvider.NONE,
        description="Istio, GatewayAPI, or None: then a plain Service weighs revisions by their pods.",
    )
    hosts: list[HostName] | None = Field(
        default=None, min_length=1, max_length=16, description="Names outside the cluster that lead here."
    )
    gateways: list[GatewayName] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Gateways that route to the service, as NAME or NAMESPACE/NAME. Istio: the mesh alone if absent.",
    )
    timeout: Duration | None = Field(
        default=None,
        description="Limit of a whole request, its stream included, such as 10m. None if absent: an answer may be "
        "long.",
    )
    retries: Retries | None = Field(default=None, description="Second attempts where they are safe; 2 if absent.")
    load_balancer: LoadBalancer | None = Field(
        default=None, description="How a pod is chosen; LeastRequest if absent, since answers differ in length."
    )
    hash_header: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9-]+$")] | None = Field(
        default=None,
        description="Requests with the same value of this header go to the same pod, for its prefix cache.",
    )
    connection_pool: ConnectionPool | None = Field(default=None, description="Limits of connections and requests.")
    outlier_detection: OutlierDetection | None = Field(
        default=None, description="When a failing pod is left out for a while; after 5 errors in a row if absent."
    )
    mtls: MutualTls | None = Field(
        default=None,
        description="Strict (if absent): pods with a sidecar take requests from the mesh alone. Permissive: from "
        "everywhere. Unset: what the namespace says.",
    )
    access: Access | None = Field(default=None, description="Who may send requests; everybody if absent.")
