"""Where the demo runs: how images get into the cluster that CLUSTER names, and how the demo leaves it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from e2e.cluster.backends import select
from e2e.cluster.local import LocalCluster
from e2e.images import build as building
from e2e.images.refs import DOCKERFILES, image_refs

BUILD_STEPS = [["e2e.images", "build", "all"], ["e2e.images", "model"]]
MODEL_STEPS = [["e2e.images", "model"]]


def kind_of_cluster() -> str:
    """local, kubeconfig or kind."""
    return os.environ.get("CLUSTER") or "local"


def preparation(*, mesh: bool = False) -> dict[str, list[list[str]]]:
    """What must be built, as commands that can run side by side; `mesh` adds Istio and Prometheus to the cluster."""
    up = ["e2e.cluster", "up", *(["--mesh"] if mesh else [])]
    if kind_of_cluster() == "kubeconfig":
        return {"cluster": [["e2e.cluster", "build", "helm"], up], "model": MODEL_STEPS}
    tools = [["e2e.cluster", "build", "helm"]] if kind_of_cluster() == "kind" else []
    return {"cluster": [*tools, up], "images": BUILD_STEPS}


def images() -> dict[str, str]:
    """Part -> image reference. A cluster of somebody else's pulls: there IMAGES names what was pushed."""
    if kind_of_cluster() != "kubeconfig":
        return image_refs()
    given = dict(part.split("=", 1) for part in os.environ.get("IMAGES", "").split(",") if "=" in part)
    if set(given) != set(DOCKERFILES):
        raise ValueError(
            "CLUSTER=kubeconfig needs images that the cluster can pull: build and push the three Dockerfiles, then set "
            "IMAGES=operator=REGISTRY/operator:TAG,trainer=REGISTRY/trainer:TAG,server=REGISTRY/server:TAG"
        )
    return given


def load_images() -> None:
    """Put the built images where the cluster's kubelet finds them; nothing to do where it pulls."""
    if kind_of_cluster() == "local":
        building.load(building.build(DOCKERFILES), LocalCluster().layout.containerd_socket)
    elif kind_of_cluster() == "kind":
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, "images.tar")
            building.export(building.build(DOCKERFILES), archive)
            select().load_image(str(archive))
