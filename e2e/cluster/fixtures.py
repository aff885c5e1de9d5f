"""pytest fixtures for both tiers: `pytest_plugins = ["e2e.cluster.fixtures"]` in a conftest.

def test_something(apiserver): apiserver.kubectl("apply", "-f", "-", stdin=...)
def test_jobs(apiserver_factory): plane = apiserver_factory(controllers=True, kwok_nodes=2)
@pytest.mark.node
def test_pod(cluster): cluster.plane.kubectl("get", "pods")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster.apiserver import ControlPlane, running_apiserver, start_apiserver

ApiServerFactory = Callable[..., ControlPlane]


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

    def start(*, controllers: bool = False, kwok_nodes: int = 0) -> ControlPlane:
        directory = tmp_path / f"plane-{len(planes)}"
        planes.append(start_apiserver(directory, controllers=controllers, kwok_nodes=kwok_nodes))
        return planes[-1]

    yield start
    for plane in planes:
        plane.stop()
