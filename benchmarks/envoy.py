"""An Envoy in front of one port, with the route that istiod makes of our VirtualService: no timeout, safe retries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster.mesh.envoy import program
from e2e.cluster.wait import wait_for
from tests.server.harness import free_port

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_LOCAL = "127.0.0.1"


def configuration(listen: int, target: int) -> dict[str, Any]:
    """The whole bootstrap: one listener, one cluster."""
    retry = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s", "retry_policy": retry}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "gateway",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {"endpoint": {"address": _socket(target)}}
    return {
        "static_resources": {
            "listeners": [{"address": _socket(listen), "filter_chains": [{"filters": filters}]}],
            "clusters": [
                {
                    "name": "server",
                    "type": "STATIC",
                    "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        }
    }


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": _LOCAL, "port_value": port}}


@contextmanager
def envoy_before(target: int, directory: Path, answers: Callable[[int], bool]) -> Iterator[tuple[int, int]]:
    """Port and process of an Envoy that passes every request on to `target`; `answers(port)` tells when it does."""
    port = free_port()
    bootstrap = directory / "envoy.json"
    bootstrap.write_text(json.dumps(configuration(port, target)))
    command = [str(program()), "--config-path", str(bootstrap), "--concurrency", "1", "--log-level", "error"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--use-dynamic-base-id"], stdout=log, stderr=log)
    try:
        wait_for("Envoy", lambda: answers(port) or process.poll() is not None, 30)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)
