"""The platform that all scenarios share: the local cluster with Tunewright installed from its chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.local import LocalCluster
from e2e.demo import quickstart, target
from e2e.demo.kubectl import Kubectl

OPERATOR_USER = f"system:serviceaccount:{quickstart.OPERATOR_NAMESPACE}:{quickstart.RELEASE}"


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
