"""What all scenarios share: one control plane with Istio, Envoy and Prometheus, the operator, and simulated servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e2e.cluster import web
from e2e.cluster.apiserver import ControlPlane, running_apiserver
from e2e.cluster.mesh import Mesh, prometheus, running_mesh
from e2e.cluster.wait import wait_for
from tests.operator_process import Operator, install_chart, running_operator
from tests.rollouts.kubelet import ServerKubelet, running_kubelet
from tests.rollouts.laws import Record
from tests.rollouts.load import Clients
from tests.rollouts.questions import Questions, listening
from tests.rollouts.watching import Mirror, running_mirror

Object = dict[str, Any]

NODES = Path(__file__).parents[1] / "integration" / "nodes-only.yaml"
TUNEWRIGHT = "/apis/tunewright.io/v1alpha1"
MIRRORED = {
    "inferenceservices": f"{TUNEWRIGHT}/inferenceservices",
    "modelversions": f"{TUNEWRIGHT}/modelversions",
    "virtualservices": "/apis/networking.istio.io/v1/virtualservices",
    "httproutes": "/apis/gateway.networking.k8s.io/v1/httproutes",
}
# A server is judged by Prometheus: it is not ready before its first samples are there.
SCRAPES = 2


@dataclass
class Arena:
    """The shared parts. `prometheus_url` is Prometheus itself, `questions.url` the way to it that remembers."""

    plane: ControlPlane
    addresses: Iterator[str]
    mesh: Mesh
    kubelet: ServerKubelet
    mirror: Mirror
    clients: Clients
    questions: Questions
    record: Record
    directory: Path
    starting: threading.Lock

    @property
    def gateway_url(self) -> str:
        return self.mesh.gateway_url

    @property
    def prometheus_url(self) -> str:
        return self.mesh.prometheus_url

    def create_namespace(self, name: str) -> None:
        """A namespace that enforces Pod Security `restricted`, with the bound claim `data`."""
        create_namespace(self.plane, name)

    @contextmanager
    def another_prometheus(self, name: str) -> Iterator[OwnPrometheus]:
        """A second Prometheus that scrapes the same pods, for a scenario that stops it."""
        own = OwnPrometheus(self, name, next(self.addresses))
        own.start()
        try:
            yield own
        finally:
            own.stop()

    @contextmanager
    def operator(self, *namespaces: str, **environment: str) -> Iterator[Operator]:
        """The operator as a process that watches some namespaces; it must not end, or log a traceback, by itself."""
        settings = {
            "TUNEWRIGHT_WATCH_NAMESPACES": ",".join(namespaces),
            "TUNEWRIGHT_PROMETHEUS_URL": self.questions.url,
            "TUNEWRIGHT_RECHECK_INTERVAL_SECONDS": "1",
        }
        with ExitStack() as stack:
            with self.starting:  # they share the file of their kubeconfig
                running = running_operator(self.plane, self.directory, **settings | environment)
                operator = stack.enter_context(running)
            yield operator


@dataclass
class OwnPrometheus:
    """A Prometheus of one scenario, with the configuration of the shared one."""

    arena: Arena
    name: str
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}:{prometheus.PORT}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        directory = self.arena.mesh.directory
        service = prometheus.prometheus(self.address, directory / "prometheus.json", directory / f"data-{self.name}")
        self.arena.plane.supervisor.start(replace(service, name=self.name))
        wait_for("a Prometheus of its own", lambda: web.answers(f"{self.url}/-/ready"), 30)

    def stop(self) -> None:
        """Stop it; its data stays."""
        self.arena.plane.supervisor.stop(self.name)


def create_namespace(plane: ControlPlane, name: str) -> None:
    """A namespace that enforces Pod Security `restricted`, with the bound claim `data`."""
    metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    plane.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{name}-data"},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": name, "name": "data"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": modes, "storageClassName": "", "resources": {"requests": size}},
    }
    plane.api.create("/api/v1/persistentvolumes", volume)
    plane.api.create(f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(f"the account of {name}", lambda: plane.exists(account), 30)
    bound = f"/api/v1/namespaces/{name}/persistentvolumeclaims/data"
    wait_for(f"the claim of {name}", lambda: plane.api.get(bound)["status"].get("phase") == "Bound", 30)


@contextmanager
def running_arena(directory: Path, addresses: Iterator[str]) -> Iterator[Arena]:
    """Everything but the operator. The files, logs among them, are below `directory`."""
    with ExitStack() as stack:
        plane = stack.enter_context(
            running_apiserver(directory / "plane", controllers=True, kwok_nodes=3, kwok_stages=NODES)
        )
        install_chart(plane)
        mesh = stack.enter_context(running_mesh(plane, directory / "mesh", next(addresses)))
        yield Arena(
            plane=plane,
            addresses=addresses,
            mesh=mesh,
            kubelet=stack.enter_context(running_kubelet(plane, addresses, scrapes=SCRAPES)),
            mirror=stack.enter_context(running_mirror(plane, MIRRORED)),
            clients=Clients(),
            questions=stack.enter_context(listening(mesh.prometheus_url)),
            record=Record(plane.audit),
            directory=directory,
            starting=threading.Lock(),
        )
