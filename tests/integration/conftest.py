"""A real control plane with simulated nodes, a namespace per test, and the real operator as a process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.apiserver import ControlPlane, free_ports, running_apiserver
from e2e.cluster.rest import ApiError
from e2e.cluster.wait import wait_for
from tests.integration.kubelet import Kubelet, running_kubelet
from tunewright_operator.rbac import VERBS

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "tunewright-system"
OPERATOR_USER = f"system:serviceaccount:{SYSTEM}:operator"
TRAINER_IMAGE = "registry.example/trainer:test"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """apiserver, controllers, scheduler, three nodes without containers, our CRDs, the operator's account and role."""
    stages = Path(__file__).parent / "nodes-only.yaml"
    directory = tmp_path_factory.mktemp("plane")
    with running_apiserver(directory, controllers=True, kwok_nodes=3, kwok_stages=stages) as control_plane:
        crds = [argument for path in sorted((ROOT / "crds").glob("*.yaml")) for argument in ("-f", str(path))]
        control_plane.kubectl("apply", "--server-side", *crds)
        _grant(control_plane)
        wait_for("the CRDs served", lambda: _served(control_plane), 30)
        yield control_plane


@pytest.fixture(scope="session")
def kubelet(plane: ControlPlane) -> Iterator[Kubelet]:
    """What plays the containers."""
    with running_kubelet(plane) as running:
        yield running


@dataclass
class Namespace:
    """A namespace that enforces Pod Security `restricted`, with the bound claim `data`."""

    plane: ControlPlane
    name: str

    def path(self, kind: str, name: str = "") -> str:
        """URL of our objects."""
        return f"/apis/tunewright.io/v1alpha1/namespaces/{self.name}/{kind}{'/' if name else ''}{name}"

    def create_job(self, name: str = "guide", **spec: Any) -> Object:
        """Create a FineTuneJob; `spec` overrides fields of its spec."""
        body: Object = {
            "apiVersion": "tunewright.io/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {
                "baseModel": {"uri": "pvc://data/base-model"},
                "dataset": {"uri": "pvc://data/train.jsonl", "format": "Alpaca"},
                "method": {"lora": {}},
                "distributed": {"deepspeed": {"zeroStage": 1}},
                "numNodes": 2,
                "resourcesPerNode": {"cpu": "1", "memory": "1Gi"},
                "output": {"uri": "pvc://data/models", "modelName": name, "version": "v1"},
            }
            | spec,
        }
        created: Object = self.plane.api.create(self.path("finetunejobs"), body)
        return created

    def job(self, name: str = "guide") -> Object:
        """The FineTuneJob."""
        found: Object = self.plane.api.get(self.path("finetunejobs", name))
        return found

    def wait_job(self, what: str, check: Callable[[Object], Any], name: str = "guide", timeout: float = 90) -> Object:
        """Wait until the status passes `check`; returns the FineTuneJob."""

        def passes() -> Object | None:
            found = self.job(name)
            return found if check(found.get("status") or {}) else None

        found: Object = wait_for(what, passes, timeout, interval=0.1, hint=lambda: str(self.job(name).get("status")))
        return found

    def list(self, path: str) -> list[Object]:
        """Objects of this namespace at `/api/v1` or `/apis/…` + PLURAL; only those of the operator for core kinds."""
        root, _, plural = path.rpartition("/")
        items: list[Object] = self.plane.api.get(f"{root}/namespaces/{self.name}/{plural}")["items"]
        return items

    def children(self) -> dict[str, list[str]]:
        """Names of all children of the operator, by kind."""
        selector = "labelSelector=app.kubernetes.io/managed-by%3Dtunewright"
        kinds = {
            "jobs": "/apis/batch/v1",
            "pods": "/api/v1",
            "services": "/api/v1",
            "configmaps": "/api/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
            "modelversions": "/apis/tunewright.io/v1alpha1",
        }
        return {
            kind: sorted(
                item["metadata"]["name"]
                for item in self.plane.api.get(f"{root}/namespaces/{self.name}/{kind}?{selector}")["items"]
            )
            for kind, root in kinds.items()
        }


def conditions(status: Object) -> dict[str, tuple[str, str]]:
    """type -> (status, reason)."""
    return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions") or ()}


@pytest.fixture
def namespace(plane: ControlPlane, kubelet: Kubelet) -> Namespace:
    """A fresh namespace for one test."""
    return create_namespace(plane)


def create_namespace(plane: ControlPlane) -> Namespace:
    """A fresh namespace with the claim `data`."""
    name = f"team-{os.getpid()}-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.api.create("/api/v1/namespaces", _core("Namespace", name) | {"metadata": {"name": name, "labels": labels}})
    made = Namespace(plane, name)
    create_claim(made, "data")
    return made


def create_claim(namespace: Namespace, name: str) -> None:
    """A claim that is bound to a volume of its own."""
    plane, space = namespace.plane, namespace.name
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {
        "capacity": size,
        "accessModes": modes,
        "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": space, "name": name},
    }
    plane.api.create("/api/v1/persistentvolumes", _core("PersistentVolume", f"{space}-{name}") | {"spec": volume})
    claim = {"accessModes": modes, "storageClassName": "", "resources": {"requests": size}}
    path = f"/api/v1/namespaces/{space}/persistentvolumeclaims"
    plane.api.create(path, _core("PersistentVolumeClaim", name) | {"spec": claim})


@dataclass
class Operator:
    """The operator as a process of its own, which sees one namespace and may do what its role says."""

    plane: ControlPlane
    namespace: str
    log: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start, and wait until /readyz is ok."""
        env = {
            **os.environ,
            "KUBECONFIG": str(self.plane.service_account_kubeconfig(SYSTEM, "operator")),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "crds", ROOT / "operator"))),
            "TUNEWRIGHT_TRAINER_IMAGE": TRAINER_IMAGE,
            "TUNEWRIGHT_SERVER_IMAGE": "registry.example/server:test",
            "TUNEWRIGHT_NAMESPACE": SYSTEM,
            "TUNEWRIGHT_WATCH_NAMESPACES": self.namespace,
            "TUNEWRIGHT_PORT": str(self.port),
            "TUNEWRIGHT_PROGRESS_INTERVAL_SECONDS": "0.3",
            "TUNEWRIGHT_RECHECK_INTERVAL_SECONDS": "1",
            **self.settings,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "tunewright_operator"], env=env, stderr=log)
        if wait:
            wait_for("the operator ready", lambda: self.ask("/readyz") == "ok", 60, hint=self.tail)

    def ask(self, path: str) -> str:
        """GET of its port; empty while nobody answers, or with an error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def tail(self) -> str:
        """The last lines of its log."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""


@pytest.fixture
def operator(namespace: Namespace, tmp_path: Path) -> Iterator[Operator]:
    """An operator for the test's namespace, not started; its log is printed with a failure."""
    process = Operator(namespace.plane, namespace.name, tmp_path / "operator.log")
    yield process
    if process.process and process.process.poll() is None:
        process.stop()
    print(process.tail())


@pytest.fixture
def running(operator: Operator) -> Operator:
    """The operator, ready."""
    operator.start()
    return operator


def _grant(plane: ControlPlane) -> None:
    """The account that the chart would make, with the verbs of the table and no others."""
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [api], "resources": [resource], "verbs": sorted(verbs)}
        for (api, resource), verbs in VERBS.items()
    ]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "operator"}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": SYSTEM}],
    }
    plane.api.create("/api/v1/namespaces", _core("Namespace", SYSTEM))
    plane.api.create(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts", _core("ServiceAccount", "operator"))
    plane.api.create(f"/apis/{group}/v1/clusterroles", role)
    plane.api.create(f"/apis/{group}/v1/clusterrolebindings", binding)


def _served(plane: ControlPlane) -> bool:
    try:
        resources = plane.api.get("/apis/tunewright.io/v1alpha1")["resources"]
    except ApiError:
        return False
    return {"finetunejobs", "modelversions", "inferenceservices"} <= {r["name"] for r in resources}


def _core(kind: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
