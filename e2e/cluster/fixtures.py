"""pytest fixtures for both tiers: `pytest_plugins = ["e2e.cluster.fixtures"]` in a conftest.

def test_something(apiserver): apiserver.kubectl("apply", "-f", "-", stdin=...)
def test_jobs(apiserver_factory): plane = apiserver_factory(controllers=True, kwok_nodes=2)
@pytest.mark.node
def test_pod(cluster): cluster.plane.kubectl("get", "pods")
@pytest.mark.node
def test_route(cluster_with_mesh): cluster_with_mesh.mesh.gateway_url
def test_fake_pod(apiserver, addresses): with running_mesh(apiserver, directory, next(addresses)) as mesh: ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster.apiserver import ControlPlane, running_apiserver, start_apiserver
from e2e.cluster.controlplane import KWOK_STAGES
from e2e.cluster.local import LocalCluster
from e2e.cluster.mesh import pod_addresses
from e2e.cluster.progress import step

ApiServerFactory = Callable[..., ControlPlane]
CLUSTER_WAS_UP = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One shared etcd and kube-apiserver: tests keep apart by namespaces of their own."""
    with running_apiserver(tmp_path_factory.mktemp("apiserver")) as plane:
        yield plane


@pytest.fixture(scope="session")
def apiserver_with_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One shared control plane with controllers, scheduler and two fake nodes (kwok)."""
    with running_apiserver(tmp_path_factory.mktemp("control-plane"), controllers=True, kwok_nodes=2) as plane:
        yield plane


@pytest.fixture
def apiserver_factory(tmp_path: Path) -> Iterator[ApiServerFactory]:
    """Start control planes of one's own: `apiserver_factory(controllers=True, kwok_nodes=3)`."""
    planes: list[ControlPlane] = []

    def start(*, controllers: bool = False, kwok_nodes: int = 0, kwok_stages: Path = KWOK_STAGES) -> ControlPlane:
        directory = tmp_path / f"plane-{len(planes)}"
        planes.append(
            start_apiserver(directory, controllers=controllers, kwok_nodes=kwok_nodes, kwok_stages=kwok_stages)
        )
        return planes[-1]

    yield start
    for plane in planes:
        plane.stop()


@pytest.fixture(scope="session")
def addresses() -> Iterator[Iterator[str]]:
    """Addresses for simulated pods: `next(addresses)` is local to this machine, and nobody else has it."""
    if os.geteuid() != 0:
        pytest.skip("addresses for simulated pods need root")
    with pod_addresses() as free:
        yield free


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The full node: `cluster.plane` has what `apiserver` has. One that runs already is used, and left running."""
    if os.geteuid() != 0:
        pytest.skip("the node tier needs root")
    node = LocalCluster()
    was_up = request.config.stash[CLUSTER_WAS_UP] = node.is_up()
    node.up(step)
    yield node
    if not was_up:
        node.down(step)


@pytest.fixture(scope="module")
def cluster_with_mesh(cluster: LocalCluster) -> LocalCluster:
    """The full node with Istio, its gateway and Prometheus in `cluster.mesh`, which stay as long as the node.

    Per module: it comes up again where tests of the cluster itself have taken it down.
    """
    cluster.up(step, mesh=True)
    return cluster
