"""Which cluster the environment variable CLUSTER asks for: our own, one that is there, or kind's.

The kind backend has unit tests of its command lines only: the machines that test this project have no Docker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from e2e.cluster import build
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import Component, LocalCluster, Step
from e2e.cluster.paths import Layout, cache_root

KIND_NAME = "tunewright"
KIND_NODE_IMAGE = f"kindest/node:{build.KUBERNETES_VERSION}"


class Backend(Protocol):
    """What the command line can ask of any cluster."""

    def up(self, step: Step, *, mesh: bool = False) -> Path: ...
    def down(self, step: Step, *, images: bool) -> None: ...
    def status(self) -> Iterable[Component]: ...
    def kubeconfig(self) -> Path: ...
    def addresses(self) -> dict[str, str]: ...
    def load_image(self, archive: str) -> list[str]: ...
    def images(self) -> list[str]: ...


class Local:
    """CLUSTER=local."""

    def __init__(self) -> None:
        self._cluster = LocalCluster()

    def up(self, step: Step, *, mesh: bool = False) -> Path:
        return self._cluster.up(step, mesh=mesh)

    def down(self, step: Step, *, images: bool) -> None:
        self._cluster.down(step)
        if images:
            self._cluster.forget_images()

    def status(self) -> Iterable[Component]:
        return self._cluster.status()

    def kubeconfig(self) -> Path:
        return self._cluster.kubeconfig

    def addresses(self) -> dict[str, str]:
        """What else the cluster offers: name -> URL."""
        if not self._cluster.has_mesh():
            return {}
        mesh = self._cluster.mesh
        return {"gateway": mesh.gateway_url, "Prometheus": mesh.prometheus_url, "Envoy": mesh.envoy_admin_url}

    def load_image(self, archive: str) -> list[str]:
        return self._cluster.load_image(archive)

    def images(self) -> list[str]:
        return self._cluster.image_names()


class Given:
    """CLUSTER=kubeconfig: a cluster that belongs to somebody; nothing is started or removed."""

    def kubeconfig(self) -> Path:
        path = os.environ.get("KUBECONFIG", "")
        if not path or not Path(path).is_file():
            raise ClusterError("CLUSTER=kubeconfig needs KUBECONFIG to be the path of one kubeconfig file.")
        return Path(path)

    def addresses(self) -> dict[str, str]:
        return {}

    def up(self, step: Step, *, mesh: bool = False) -> Path:
        _refuse(mesh)
        with step("answer of the given cluster"):
            _run(given_check(self.kubeconfig()), "The cluster of $KUBECONFIG does not answer")
        return self.kubeconfig()

    def down(self, step: Step, *, images: bool) -> None:
        """The cluster is not ours to remove."""

    def status(self) -> Iterable[Component]:
        ready = subprocess.run(given_check(self.kubeconfig()), capture_output=True, check=False).returncode == 0
        return [Component("given cluster", None, ready, Path("-"))]

    def load_image(self, archive: str) -> list[str]:
        raise ClusterError(f"Push {archive} to a registry of your cluster: a kubeconfig gives no way to load it.")

    def images(self) -> list[str]:
        raise ClusterError("A kubeconfig gives no way to list the images of a cluster's nodes.")


class Kind:
    """CLUSTER=kind: kind's own cluster in Docker. Not run on the machines that test this project."""

    def kubeconfig(self) -> Path:
        path = Layout(cache_root()).cache / "kind.kubeconfig"
        if not path.exists():
            raise ClusterError("The kind cluster is not up: start it with `CLUSTER=kind python -m e2e.cluster up`.")
        return path

    def addresses(self) -> dict[str, str]:
        return {}

    def up(self, step: Step, *, mesh: bool = False) -> Path:
        _refuse(mesh)
        path = Layout(cache_root()).cache / "kind.kubeconfig"
        path.parent.mkdir(parents=True, exist_ok=True)
        with step("kind cluster"):
            names = _run(["kind", "get", "clusters"], "kind does not answer; is Docker running?").split()
            if KIND_NAME not in names:
                _run(kind_create(path), "kind could not create a cluster")
            _run(kind_kubeconfig(path), "kind could not write the kubeconfig")
        return path

    def down(self, step: Step, *, images: bool) -> None:
        with step("kind cluster"):
            _run(kind_delete(), "kind could not delete the cluster")
            (Layout(cache_root()).cache / "kind.kubeconfig").unlink(missing_ok=True)

    def status(self) -> Iterable[Component]:
        ready = subprocess.run(given_check(self.kubeconfig()), capture_output=True, check=False).returncode == 0
        return [Component("kind", None, ready, Path("-"))]

    def load_image(self, archive: str) -> list[str]:
        _run(kind_load(archive), "kind could not load the image")
        return [archive]

    def images(self) -> list[str]:
        output = _run(kind_images(), "Docker could not ask kind's node")
        return sorted(line.split()[0] for line in output.splitlines()[1:])


def given_check(kubeconfig: Path) -> list[str]:
    """The command that asks a cluster whether it is ready."""
    return [build.kubectl(), f"--kubeconfig={kubeconfig}", "get", "--raw=/readyz"]


def kind_create(kubeconfig: Path) -> list[str]:
    return [
        *("kind", "create", "cluster", f"--name={KIND_NAME}", f"--image={KIND_NODE_IMAGE}"),
        *(f"--kubeconfig={kubeconfig}", "--wait=120s"),
    ]


def kind_kubeconfig(kubeconfig: Path) -> list[str]:
    return ["kind", "export", "kubeconfig", f"--name={KIND_NAME}", f"--kubeconfig={kubeconfig}"]


def kind_delete() -> list[str]:
    return ["kind", "delete", "cluster", f"--name={KIND_NAME}"]


def kind_load(archive: str) -> list[str]:
    """The command that loads an archive; kind reads standard input as /dev/stdin."""
    return ["kind", "load", "image-archive", "/dev/stdin" if archive == "-" else archive, f"--name={KIND_NAME}"]


def kind_images() -> list[str]:
    return ["docker", "exec", f"{KIND_NAME}-control-plane", "crictl", "images"]


def select(name: str | None = None) -> Backend:
    """The backend that `name` or CLUSTER asks for."""
    chosen = name or os.environ.get("CLUSTER") or "local"
    if chosen == "local":
        return Local()
    if chosen == "kubeconfig":
        return Given()
    if chosen == "kind":
        if not shutil.which("kind"):
            raise ClusterError("CLUSTER=kind needs kind and Docker: install both, or use CLUSTER=local as root.")
        return Kind()
    raise ClusterError(f"CLUSTER={chosen} is not known: use local, kubeconfig or kind.")


def _refuse(mesh: bool) -> None:
    if mesh:
        raise ClusterError("Only CLUSTER=local brings a mesh: install Istio and Prometheus there as you do elsewhere.")


def _run(command: list[str], failure: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{failure}: {done.stderr.strip()}")
    return done.stdout.strip()
