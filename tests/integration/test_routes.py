"""What the operator writes for traffic, on a real apiserver with real istiod and Envoy: requests and copies go where
the split says, by Istio and by the Gateway API."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from e2e.cluster.apiserver import ControlPlane, running_apiserver
from e2e.cluster.mesh import Mesh, running_mesh
from e2e.cluster.wait import wait_for
from tests.routing import CANARY, CANDIDATE, STABLE, route
from tests.serving import NAMESPACE, service
from tunewright_api.names import HEADER_REVISION, PORT_SERVER
from tunewright_operator.kube.resources import collection_path, path_of
from tunewright_operator.manifests.server import build_disruption_budget, revision_selector
from tunewright_operator.manifests.traffic import Split
from tunewright_operator.plan import Step, key, plan, with_hash

Object = dict[str, Any]

HOST = "guide.example.com"
COMMON = {"gateways": ["istio-system/gateway"], "hosts": [HOST]}
POOL = {"maxConnections": 99, "maxPendingRequests": 99, "maxRequests": 99, "connectTimeout": "5s"}
ISTIO = {"provider": "Istio", "connectionPool": POOL, "timeout": "10m"} | COMMON
GATEWAY_API = {"provider": "GatewayAPI", "timeout": "2m"} | COMMON


class Pod(http.server.ThreadingHTTPServer):
    """A simulated pod of a revision: it answers with the revision and counts its requests."""

    daemon_threads = True

    def __init__(self, plane: ControlPlane, revision: str, address: str) -> None:
        super().__init__((address, PORT_SERVER), Answer)
        self.revision, self.requests = revision, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()
        container = {"name": "server", "image": "any", "ports": [{"containerPort": PORT_SERVER, "name": "http"}]}
        labels = revision_selector(service(), revision)
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"guide-{revision}", "namespace": NAMESPACE, "labels": labels},
            "spec": {"nodeName": "fake-0", "containers": [container]},
        }
        plane.api.create(collection_path("v1", "Pod", NAMESPACE), manifest)
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        plane.api.merge(path_of(manifest, "status"), {"status": status | ready})


class Answer(http.server.BaseHTTPRequestHandler):
    """One request to a Pod."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment an answer: a second one would wait for the first one's acknowledgement
    server: Pod

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.revision)))
        self.end_headers()
        self.wfile.write(self.server.revision.encode())

    def log_message(self, *_: Any) -> None:
        """The test's output is not the place."""


@pytest.fixture(scope="module")
def mesh(addresses: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Of its own: no operator and no kubelet touches these pods."""
    directory = tmp_path_factory.mktemp("routes")
    with (
        running_apiserver(directory / "plane", controllers=True, kwok_nodes=1) as plane,
        running_mesh(plane, directory / "mesh", next(addresses)) as running,
    ):
        plane.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        wait_for("service account", lambda: plane.exists(account), 20)
        yield running


@pytest.fixture(scope="module")
def pods(mesh: Mesh, addresses: Iterator[str]) -> Iterator[dict[str, Pod]]:
    """One for each revision."""
    found = {revision: Pod(mesh.plane, revision, next(addresses)) for revision in (STABLE, CANDIDATE)}
    yield found
    for pod in found.values():
        pod.shutdown()
        pod.server_close()


@pytest.fixture(params=[ISTIO, GATEWAY_API], ids=["Istio", "GatewayAPI"])
def traffic(request: pytest.FixtureRequest, mesh: Mesh, pods: dict[str, Pod]) -> Iterator[Object]:
    """spec.traffic; afterwards its objects are gone."""
    given: Object = request.param
    yield given
    for one in route(CANARY, given):
        mesh.plane.api.delete(path_of(one))
    wait_for("the route is gone", lambda: answers(mesh, 1) == {"404": 1}, 30)


def write(mesh: Mesh, split: Split, traffic: Object) -> None:
    """Apply what the operator writes."""
    for one in route(split, traffic):
        mesh.plane.api.apply(path_of(one), one)


def answers(mesh: Mesh, count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Send requests through the gateway; count the revisions that answered, and other answers by their status."""
    connection = http.client.HTTPConnection(mesh.address, mesh.gateway_port, timeout=10)
    found: Counter[str] = Counter()
    for _ in range(count):
        connection.request("GET", "/v1/models", headers={"Host": HOST} | (headers or {}))
        response = connection.getresponse()
        text = response.read().decode()
        found[text if response.status == 200 else str(response.status)] += 1
    connection.close()
    return found


def wait_routed(mesh: Mesh, among: set[str]) -> None:
    """Wait until the gateway sends requests to these revisions alone."""
    wait_for(f"requests go to {among}", lambda: set(answers(mesh, 20)) <= among, 30)


def test_requests_are_shared_by_weight(mesh: Mesh, traffic: Object) -> None:
    write(mesh, CANARY, traffic)
    wait_routed(mesh, {STABLE, CANDIDATE})
    found = answers(mesh, 400)
    assert set(found) == {STABLE, CANDIDATE}
    assert 40 <= found[CANDIDATE] <= 130  # 80 are expected, with a deviation of 8


def test_a_header_chooses_the_revision(mesh: Mesh, traffic: Object) -> None:
    write(mesh, replace(CANARY, weight=0), traffic)
    wait_routed(mesh, {STABLE})
    for revision in (STABLE, CANDIDATE):
        assert answers(mesh, 20, {HEADER_REVISION: revision}) == {revision: 20}


def test_the_candidate_gets_copies_and_nobody_its_answers(mesh: Mesh, traffic: Object, pods: dict[str, Pod]) -> None:
    write(mesh, replace(CANARY, weight=0, mirror_weight=100), traffic)
    wait_routed(mesh, {STABLE})
    wait_for("copies arrive", lambda: copied(mesh, pods[CANDIDATE]), 30)
    before = pods[CANDIDATE].requests
    assert answers(mesh, 50) == {STABLE: 50}
    wait_for("50 copies", lambda: pods[CANDIDATE].requests >= before + 50, 10)


def copied(mesh: Mesh, candidate: Pod) -> bool:
    """Whether a request to the stable revision has just reached the candidate, too."""
    before = candidate.requests
    answers(mesh, 1)
    return candidate.requests > before


def test_a_promotion_fails_no_request(mesh: Mesh, traffic: Object) -> None:
    write(mesh, CANARY, traffic)
    wait_routed(mesh, {STABLE, CANDIDATE})
    write(mesh, Split(CANDIDATE, revisions=(STABLE, CANDIDATE)), traffic)
    seen: Counter[str] = Counter()

    def promoted() -> bool:
        seen.update(found := answers(mesh, 20))
        return found == {CANDIDATE: 20}

    wait_for("the candidate gets every request", promoted, 30)
    assert set(seen) <= {STABLE, CANDIDATE}


def test_what_the_apiserver_makes_of_our_objects_counts_as_what_we_wrote(mesh: Mesh, traffic: Object) -> None:
    """Else they would be written again in each turn."""
    desired = route(replace(CANARY, mirror_weight=50), traffic)
    stored = [mesh.plane.api.apply(path_of(one), one) for one in map(with_hash, desired)]
    assert plan(desired, stored) == Step()
    edited = [{**one, "spec": {}} for one in stored]
    assert [key(one) for one in plan(desired, edited).apply] == [key(one) for one in desired]


def test_the_gateway_accepts_the_route(mesh: Mesh, traffic: Object) -> None:
    write(mesh, CANARY, traffic)
    wait_routed(mesh, {STABLE, CANDIDATE})
    assert [one["code"] for one in mesh.analyze(namespace=NAMESPACE)] == []
    for one in route(CANARY, traffic):
        if one["kind"] == "HTTPRoute":
            (parent,) = mesh.plane.api.get(path_of(one))["status"]["parents"]
            assert {c["type"]: c["status"] for c in parent["conditions"]} == {
                "Accepted": "True",
                "ResolvedRefs": "True",
            }


def test_the_apiserver_takes_the_disruption_budget(mesh: Mesh) -> None:
    budget = build_disruption_budget(service())
    stored = mesh.plane.api.apply(path_of(budget), budget)
    assert stored["spec"] == budget["spec"]
