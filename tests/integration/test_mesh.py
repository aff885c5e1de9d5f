"""Istio, Envoy and Prometheus beside the cluster: requests are split as objects say, and pods are scraped."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import web
from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.mesh import Mesh, running_mesh
from e2e.cluster.node import PROBE_IMAGE
from e2e.cluster.progress import step
from e2e.cluster.wait import wait_for

Object = dict[str, Any]

NAMESPACE = "meshed"
PORT = 8000
NETWORKING = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}"


@pytest.fixture(scope="module")
def mesh(plane: ControlPlane, addresses: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running_mesh(plane, tmp_path_factory.mktemp("mesh"), next(addresses)) as running:
        yield running


class Pod(http.server.ThreadingHTTPServer):
    """A simulated pod of the Service `echo`: it answers with its name, and with one metric on /metrics."""

    daemon_threads = True

    def __init__(self, plane: ControlPlane, name: str, address: str) -> None:
        super().__init__((address, PORT), Answer)
        self.pod = name
        threading.Thread(target=self.serve_forever, daemon=True).start()
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        plane.api.create(path, pod_manifest(name))
        plane.api.merge(f"{path}/{name}/status", {"status": running_status(address)})


class Answer(http.server.BaseHTTPRequestHandler):
    """One request to a Pod."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment an answer: a second one would wait for the first one's acknowledgement
    server: Pod

    def do_GET(self) -> None:
        text = "answers_total 42\n" if self.path == "/metrics" else self.server.pod
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """The test's output is not the place."""


def pod_manifest(name: str) -> Object:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "echo", "version": name}, "annotations": annotations},
        "spec": {
            "nodeName": "fake-0",
            "containers": [{"name": "echo", "image": "any", "ports": [{"containerPort": PORT, "name": "http"}]}],
        },
    }


def running_status(address: str) -> Object:
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def service(name: str, selector: dict[str, str]) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": PORT}]
    spec = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def virtual_service(host: str, stable: int, subset: str = "v1") -> Object:
    def route(name: str, weight: int) -> Object:
        return {"destination": {"host": f"echo.{NAMESPACE}.svc.cluster.local", "subset": name}, "weight": weight}

    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": host.partition(".")[0], "namespace": NAMESPACE},
        "spec": {
            "hosts": [host],
            "gateways": ["istio-system/gateway"],
            "http": [{"route": [route(subset, stable), route("v2", 100 - stable)]}],
        },
    }


def destination_rule() -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "echo", "namespace": NAMESPACE},
        "spec": {
            "host": f"echo.{NAMESPACE}.svc.cluster.local",
            "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")],
        },
    }


def http_route(host: str, stable: int) -> Object:
    backends = [
        {"name": "echo-v1", "port": 80, "weight": stable},
        {"name": "echo-v2", "port": 80, "weight": 100 - stable},
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "echo", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": "gateway", "namespace": "istio-system"}],
            "hostnames": [host],
            "rules": [{"backendRefs": backends}],
        },
    }


@pytest.fixture(scope="module")
def echo(plane: ControlPlane, mesh: Mesh, addresses: Iterator[str]) -> Iterator[Mesh]:
    """The mesh with the pods v1 and v2, one Service for both, and one for each."""
    api = plane.api
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    wait_for("service account", lambda: plane.exists(account), 20)
    pods = [Pod(plane, name, next(addresses)) for name in ("v1", "v2")]
    services = {"echo": {}, "echo-v1": {"version": "v1"}, "echo-v2": {"version": "v2"}}
    for name, labels in services.items():
        api.create(f"/api/v1/namespaces/{NAMESPACE}/services", service(name, {"app": "echo", **labels}))
    api.create(f"{NETWORKING}/destinationrules", destination_rule())
    yield mesh
    api.delete(f"/api/v1/namespaces/{NAMESPACE}")
    for pod in pods:
        pod.shutdown()
        pod.server_close()


def answers(mesh: Mesh, host: str, count: int) -> Counter[str]:
    """Send requests through the gateway; count the pods that answered, and other answers by their status."""
    connection = http.client.HTTPConnection(mesh.address, mesh.gateway_port, timeout=10)
    found: Counter[str] = Counter()
    for _ in range(count):
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        text = response.read().decode()
        found[text if response.status == 200 else str(response.status)] += 1
    connection.close()
    return found


def wait_served(mesh: Mesh, host: str) -> None:
    wait_for(f"{host} served", lambda: set(answers(mesh, host, 1)) <= {"v1", "v2"}, 30, hint=lambda: hint(mesh))


def hint(mesh: Mesh) -> str:
    return web.ask(f"{mesh.envoy_admin_url}/clusters")[1]


def test_a_virtual_service_splits_requests(plane: ControlPlane, echo: Mesh) -> None:
    host = "split.example.com"
    plane.api.create(f"{NETWORKING}/virtualservices", virtual_service(host, 90))
    wait_served(echo, host)
    found = answers(echo, host, 400)
    assert set(found) == {"v1", "v2"}
    assert 20 <= found["v2"] <= 70


def test_a_changed_weight_reaches_the_gateway_without_a_failed_request(plane: ControlPlane, echo: Mesh) -> None:
    host = "shift.example.com"
    plane.api.create(f"{NETWORKING}/virtualservices", virtual_service(host, 100))
    wait_served(echo, host)
    assert answers(echo, host, 50) == {"v1": 50}
    plane.api.merge(f"{NETWORKING}/virtualservices/shift", {"spec": virtual_service(host, 0)["spec"]})
    seen: Counter[str] = Counter()

    def shifted() -> bool:
        seen.update(found := answers(echo, host, 20))
        return found == {"v2": 20}

    wait_for("the candidate gets every request", shifted, 30)
    assert set(seen) <= {"v1", "v2"}


def test_an_http_route_splits_requests(plane: ControlPlane, echo: Mesh) -> None:
    host = "route.example.com"
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes"
    plane.api.create(path, http_route(host, 90))
    wait_served(echo, host)
    found = answers(echo, host, 400)
    assert set(found) == {"v1", "v2"}
    assert 20 <= found["v2"] <= 70
    (parent,) = plane.api.get(f"{path}/echo")["status"]["parents"]
    accepted = {condition["type"]: condition["status"] for condition in parent["conditions"]}
    assert accepted == {"Accepted": "True", "ResolvedRefs": "True"}


def test_an_annotated_pod_is_scraped_with_its_labels(echo: Mesh) -> None:
    samples = wait_for("both pods scraped", lambda: both(echo.query("answers_total")), 30)
    found = sorted((one["metric"]["namespace"], one["metric"]["pod"], one["metric"]["version"]) for one in samples)
    assert found == [(NAMESPACE, "v1", "v1"), (NAMESPACE, "v2", "v2")]
    assert {one["value"][1] for one in samples} == {"42"}


def both(samples: list[Object]) -> list[Object]:
    return samples if len(samples) == 2 else []


def test_what_envoy_counts_is_known_by_service_and_subset(plane: ControlPlane, echo: Mesh) -> None:
    host = "counted.example.com"
    plane.api.create(f"{NETWORKING}/virtualservices", virtual_service(host, 100))
    wait_served(echo, host)
    cluster = f"outbound|80|v1|echo.{NAMESPACE}.svc.cluster.local"
    query = f'envoy_cluster_upstream_rq{{cluster_name="{cluster}",response_code="200"}}'
    wait_for("Envoy scraped", lambda: echo.query(query), 30)


def test_a_process_is_scraped_and_rules_are_evaluated(plane: ControlPlane, echo: Mesh, tmp_path: Path) -> None:
    address = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/v1")["status"]["podIP"]
    echo.add_target("operator", f"{address}:{PORT}", team="a")
    rules = tmp_path / "rules.yaml"
    rule = {"record": "answers:double", "expr": '2 * answers_total{job="operator"}'}
    rules.write_text(json.dumps({"groups": [{"name": "test", "rules": [rule]}]}))
    echo.add_rules(rules)
    (sample,) = wait_for("the rule evaluated", lambda: echo.query("answers:double"), 30)
    assert sample["value"][1] == "84"
    assert sample["metric"]["team"] == "a"


def test_a_bad_rule_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    rules = tmp_path / "broken.yaml"
    rules.write_text(json.dumps({"groups": [{"name": "broken", "rules": [{"record": "x", "expr": "1 +"}]}]}))
    with pytest.raises(ClusterError, match=r"(?s)Prometheus refuses .*broken\.yaml"):
        mesh.add_rules(rules)


def test_a_bad_query_is_told(mesh: Mesh) -> None:
    with pytest.raises(ClusterError, match=r"Prometheus refuses 'sum\(': .*parse error"):
        mesh.query("sum(")


@pytest.mark.parametrize(
    ("subset", "codes"),
    [pytest.param("v1", [], id="a good one"), pytest.param("v9", ["IST0101"], id="an unknown subset")],
)
def test_istioctl_analyzes_manifests(mesh: Mesh, tmp_path: Path, subset: str, codes: list[str]) -> None:
    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gateway", "namespace": "istio-system"},
        "spec": {"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]},
    }
    file = tmp_path / "manifests.yaml"
    echo = service("echo", {"app": "echo"}) | {"metadata": {"name": "echo", "namespace": NAMESPACE}}
    manifests = [gateway, echo, destination_rule(), virtual_service("analyzed.example.com", 90, subset)]
    file.write_text("\n---\n".join(map(json.dumps, manifests)))
    assert [one["code"] for one in mesh.analyze(file)] == codes


def test_istioctl_analyzes_a_namespace(plane: ControlPlane, echo: Mesh) -> None:
    assert echo.analyze(namespace=NAMESPACE) == []
    plane.api.create(f"{NETWORKING}/virtualservices", virtual_service("broken.example.com", 90, "v9"))
    try:
        assert [one["code"] for one in echo.analyze(namespace=NAMESPACE)] == ["IST0101"]
    finally:
        plane.api.delete(f"{NETWORKING}/virtualservices/broken")


# The full node.

PROBE_PORT = 8080


def probe_pod(name: str) -> Object:
    """A pod that answers every request, and every scrape, with its name as a metric."""
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PROBE_PORT)}
    container = {
        "name": "probe",
        "image": PROBE_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["serve", f"answers_{name} 42"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "echo", "version": name}, "annotations": annotations},
        "spec": {"containers": [container]},
    }


@pytest.fixture(scope="module")
def probes(cluster_with_mesh: LocalCluster) -> Iterator[Mesh]:
    """The node's mesh with the pods v1 and v2 behind a Service and a VirtualService for `probes.example.com`."""
    plane = cluster_with_mesh.plane
    plane.kubectl("create", "namespace", NAMESPACE)
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    wait_for("service account", lambda: plane.exists(account), 20)
    ports = {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": PROBE_PORT}], "selector": {"app": "echo"}}}
    objects = [
        *(probe_pod(name) for name in ("v1", "v2")),
        service("echo", {}) | ports,
        destination_rule(),
        virtual_service("probes.example.com", 50),
    ]
    for manifest in objects:
        plane.kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(manifest))
    plane.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")
    yield cluster_with_mesh.mesh
    plane.kubectl("delete", "namespace", NAMESPACE)


@pytest.mark.node
def test_requests_reach_real_pods_through_the_gateway(probes: Mesh) -> None:
    host = "probes.example.com"
    expected = {f"answers_{name} 42\n" for name in ("v1", "v2")}
    wait_for("both answer", lambda: set(answers(probes, host, 20)) == expected, 30, hint=lambda: hint(probes))


@pytest.mark.node
def test_real_pods_are_scraped(probes: Mesh) -> None:
    def scraped() -> dict[str, Object]:
        found = {name: probes.query(f"answers_{name}") for name in ("v1", "v2")}
        return {name: samples[0]["metric"] for name, samples in found.items()} if all(found.values()) else {}

    for name, labels in wait_for("both pods scraped", scraped, 30).items():
        assert (labels["namespace"], labels["pod"], labels["version"]) == (NAMESPACE, name, name)


@pytest.mark.node
def test_a_pod_reaches_prometheus_and_the_gateway_by_name(cluster_with_mesh: LocalCluster, probes: Mesh) -> None:
    def ask(url: str) -> str:
        return cluster_with_mesh.plane.kubectl("-n", NAMESPACE, "exec", "v1", "--", "/probe", "get", url)

    for url in (probes.prometheus_url, "http://prometheus.monitoring.svc:9090"):
        assert ask(f"{url}/-/ready").startswith("200\n")
    assert ask("http://istio-ingressgateway.istio-system").startswith("404\n")


@pytest.mark.node
def test_a_killed_part_comes_back_with_up(cluster_with_mesh: LocalCluster) -> None:
    for name in ("istiod", "envoy", "prometheus"):
        cluster_with_mesh.supervisor.stop(name, grace=0)
    assert not all(one.ready for one in cluster_with_mesh.status())
    cluster_with_mesh.up(step)
    ready = {one.name: one.ready for one in cluster_with_mesh.status()}
    assert ready == dict.fromkeys(ready, True)
    assert {"istiod", "envoy", "prometheus"} <= set(ready)
