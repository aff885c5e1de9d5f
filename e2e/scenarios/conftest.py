"""The platform that all scenarios share: the local cluster with Tunewright installed from its chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.local import LocalCluster
from e2e.demo import quickstart, target
from e2e.demo.kubectl import Kubectl

HERE = Path(__file__).parent
# The canary goes on from the version that the quickstart trains, which costs minutes: it comes after it.
LAST = "test_canary.py"
OPERATOR_USER = f"system:serviceaccount:{quickstart.OPERATOR_NAMESPACE}:{quickstart.RELEASE}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put LAST behind the other scenarios; everything else stays where it is."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted((items[place] for place in places), key=lambda item: item.path.name == LAST)
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@dataclass(frozen=True)
class Platform:
    """A running cluster with the operator in it."""

    kubectl: Kubectl
    plane: ControlPlane
    images: dict[str, str]

    def operator_pod(self) -> quickstart.Object:
        """The operator's pod."""
        (pod,) = self.kubectl.list("pods", quickstart.OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=tunewright")
        return pod


@pytest.fixture(scope="session")
def platform(cluster: LocalCluster) -> Iterator[Platform]:
    """Tunewright, freshly installed by helm; the quickstart's namespace holds base model and dataset."""
    kubectl = Kubectl(cluster.layout.kubeconfig)
    images = target.images()
    if kubectl.get("namespace", quickstart.NAMESPACE, quickstart.NAMESPACE):
        pytest.fail("a demo is up, and the scenarios would remove it: run `make demo-down` first")
    target.load_images()
    quickstart.install(kubectl, images)
    quickstart.upload(kubectl, images["trainer"], quickstart.inputs())
    yield Platform(kubectl, cluster.plane, images)
    if cluster.is_up():  # a test of the cluster itself may have taken it down
        quickstart.leftovers(kubectl)
