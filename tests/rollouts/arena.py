"""What all scenarios share: one control plane with Istio, Envoy and Prometheus, the operator, and simulated servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
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
from tests.rollouts.witness import Witness, watching

Object = dict[str, Any]

NODES = Path(__file__).parents[1] / "integration" / "nodes-only.yaml"
TUNEWRIGHT = "/apis/tunewright.io/v1alpha1"
MIRRORED = {
    "inferenceservices": f"{TUNEWRIGHT}/inferenceservices",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
    "modelversions": f"{TUNEWRIGHT}/modelversions",
    "virtualservices": "/apis/networking.istio.io/v1/virtualservices",
    "httproutes": "/apis/gateway.networking.k8s.io/v1/httproutes",
}
# A server is judged by Prometheus: it is not ready before its first samples are there.
SCRAPES = 2


@dataclass
class Arena:
    """The shared parts. `mesh_address` is where the mesh is, once it is there (`meshed`); `prometheus_url` is its
    Prometheus, `questions.url` the way to it that remembers."""

    plane: ControlPlane
    addresses: Iterator[str]
    mesh_address: str
    kubelet: ServerKubelet
    mirror: Mirror
    witness: Witness
    clients: Clients
    questions: Questions
    record: Record
    directory: Path
    mesh: Mesh | None = None
    slowdown: Callable[[float, float], float] = lambda since, until: 1.0
    starting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gateway_url(self) -> str:
        """Where users come in."""
        assert self.mesh
        return self.mesh.gateway_url

    @property
    def prometheus_url(self) -> str:
        return prometheus_url(self.mesh_address)

    @contextmanager
    def meshed(self) -> Iterator[None]:
        """Istio, its gateway and Prometheus for the time of the block."""
        with running_mesh(self.plane, self.directory / "mesh", self.mesh_address) as self.mesh:
            yield

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
            "TUNEWRIGHT_RECHECK_INTERVAL_SECONDS": "3",
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
        return prometheus_url(self.address)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        directory = self.arena.directory / "mesh"
        service = prometheus.prometheus(self.address, directory / "prometheus.json", directory / f"data-{self.name}")
        self.arena.plane.supervisor.start(replace(service, name=self.name))
        wait_for("a Prometheus of its own", lambda: web.answers(f"{self.url}/-/ready"), 30)

    def stop(self) -> None:
        """Stop it; its data stays."""
        self.arena.plane.supervisor.stop(self.name)


def prometheus_url(address: str) -> str:
    """Base URL of a Prometheus of the mesh."""
    return f"http://{address}:{prometheus.PORT}"


def create_namespaces(plane: ControlPlane, names: Collection[str]) -> None:
    """Namespaces that enforce Pod Security `restricted`, each with the bound claim `data`."""
    for name in names:
        metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        plane.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        create_claim(plane, name, "data")
    for name in names:
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_for(f"the account of {name}", partial(plane.exists, account), 30)
        wait_bound(plane, name, "data")


def create_claim(plane: ControlPlane, namespace: str, name: str) -> None:
    """A claim, and a volume of its own."""
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": modes, "storageClassName": "", "resources": {"requests": size}},
    }
    plane.api.create("/api/v1/persistentvolumes", volume)
    plane.api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim)


def wait_bound(plane: ControlPlane, namespace: str, claim: str) -> None:
    """Without its volume a claim holds pods up."""
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
    wait_for(f"claim {claim}", lambda: plane.api.get(path)["status"].get("phase") == "Bound", 30)


@contextmanager
def running_arena(directory: Path, addresses: Iterator[str]) -> Iterator[Arena]:
    """Everything but the operator and the mesh. The files, logs among them, are below `directory`."""
    with ExitStack() as stack:
        plane = stack.enter_context(
            running_apiserver(directory / "plane", controllers=True, kwok_nodes=3, kwok_stages=NODES)
        )
        install_chart(plane)
        mesh_address = next(addresses)
        mirror = stack.enter_context(running_mirror(plane, MIRRORED))
        yield Arena(
            plane=plane,
            addresses=addresses,
            mesh_address=mesh_address,
            kubelet=stack.enter_context(running_kubelet(plane, addresses, scrapes=SCRAPES)),
            mirror=mirror,
            witness=stack.enter_context(watching(mirror)),
            clients=Clients(),
            questions=stack.enter_context(listening(prometheus_url(mesh_address))),
            record=Record(plane.audit),
            directory=directory,
        )
