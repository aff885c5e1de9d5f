"""A running control plane: etcd and kube-apiserver, and on request the controllers, the scheduler and kwok.

The apiserver tier runs it on free loopback ports and lets it die with the tests; the node tier (`local.py`) runs the
same class detached, on the address that its node can reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from e2e.cluster import build, controlplane, packages
from e2e.cluster.audit import AuditLog
from e2e.cluster.controlplane import KWOK_STAGES, Credentials, Endpoint, fake_node
from e2e.cluster.errors import ClusterError
from e2e.cluster.pki import Authority, Identity, kubeconfig, user_subject, write_kubeconfig
from e2e.cluster.process import Supervisor
from e2e.cluster.rest import Api, ApiError
from e2e.cluster.wait import wait_for

ADMIN = "admin"
IDENTITIES = {
    ADMIN: ("tunewright-admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kwok": ("system:kwok", ("system:masters",)),
    "kube-proxy": ("system:kube-proxy", ()),
    "coredns": ("system:coredns", ()),
    "kubelet": ("system:node:tunewright-node", ("system:nodes",)),
}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class ControlPlane:
    """The control plane whose files are in `directory`.

    Attributes for tests: `url`, `ca` (a path), `token` and `kubeconfig` (a path) of a cluster admin, `api` (a small
    client with that token), `audit` (the audit log).
    """

    def __init__(self, directory: Path, supervisor: Supervisor, endpoint: Endpoint | None = None) -> None:
        self.directory = directory
        self.supervisor = supervisor
        directory.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(directory / "pki")
        self.endpoint = self._remembered_endpoint(endpoint)
        self.url = self.endpoint.url
        self.ca = self._authority.ca
        self.identities = self._remembered_identities()
        self.token = self.identities[ADMIN].token
        self.kubeconfig = self.component_kubeconfig(ADMIN)
        self.api = Api(self.url, self.ca, self.token)
        self.audit = AuditLog(directory / "audit.log")
        self._credentials = self._make_credentials()

    def start(self) -> None:
        """Start etcd and the apiserver, and return when the API is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start etcd and the apiserver, which waits for etcd by itself."""
        self.supervisor.start(controlplane.etcd(self.directory, self.endpoint))
        policy = self.directory / "audit-policy.json"
        policy.write_text(json.dumps(controlplane.audit_policy()))
        self.supervisor.start(controlplane.kube_apiserver(self.directory, self.endpoint, self._credentials))

    def wait_ready(self) -> None:
        """Wait for /readyz."""
        self.wait("kube-apiserver", self.api.ready, needs=("etcd", "kube-apiserver"))

    def start_controllers(self, recycler: Path | None = None) -> None:
        """Start the controller-manager and the scheduler, and return when both are healthy."""
        manager, scheduler = free_ports(2)
        services = {
            manager: controlplane.kube_controller_manager(
                manager,
                self.component_kubeconfig("kube-controller-manager"),
                self._credentials,
                recycler,
            ),
            scheduler: controlplane.kube_scheduler(scheduler, self.component_kubeconfig("kube-scheduler")),
        }
        started = {port: service for port, service in services.items() if self.supervisor.start(service)}
        for port, service in started.items():
            healthz = Api(f"https://127.0.0.1:{port}", self.ca, self.token, verify=False)
            self.wait(service.name, lambda api=healthz: api.ready("/healthz"))
        # Pods are refused until the controllers have made their namespace's service account.
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        self.wait("kube-controller-manager", lambda: self.exists(path))

    def start_kwok(self, nodes: int = 1, stages: Path = KWOK_STAGES) -> None:
        """Start kwok, create `nodes` fake nodes, and return when they are Ready.

        `stages` says what becomes of their pods; by default they run, and those of Jobs succeed.
        """
        (port,) = free_ports(1)
        home = self.directory / "kwok"
        self.supervisor.start(controlplane.kwok(port, self.component_kubeconfig("kwok"), home, stages))
        self.add_nodes(*(fake_node(f"fake-{number}") for number in range(nodes)))

    def add_nodes(self, *nodes: dict[str, Any]) -> None:
        """Create Nodes (see `fake_node`) and wait until kwok has made them Ready."""
        for node in nodes:
            self.api.create("/api/v1/nodes", node)
        for node in nodes:
            self.wait("kwok", lambda name=node["metadata"]["name"]: self.node_ready(name))

    def node_ready(self, name: str) -> bool:
        """Whether a Node exists and is Ready."""
        if not self.exists(path := f"/api/v1/nodes/{name}"):
            return False
        conditions = self.api.get(path)["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def exists(self, path: str) -> bool:
        """Whether the API has an object at `path`."""
        try:
            self.api.get(path)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    def wait(self, name: str, check: Any, *, needs: Sequence[str] = (), timeout: float = 60) -> None:
        """Wait for a component's `check`, ending early, with its log, when its process has ended."""

        def guarded() -> bool:
            for need in needs or (name,):
                self.supervisor.require(need)
            return bool(check())

        wait_for(f"{name} ready", guarded, timeout, hint=lambda: self.supervisor.tail(name))

    def component_kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one of IDENTITIES."""
        path = self.directory / f"{name}.kubeconfig"
        if not path.exists():
            write_kubeconfig(path, kubeconfig(self.url, self.ca.absolute(), {"token": self.identities[name].token}))
        return path

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for any user, by a client certificate that the API trusts."""
        name = "user-" + "".join(c if c.isalnum() else "-" for c in "-".join((user, *groups)))
        cert, key = self._authority.certificate(name, user_subject(user, groups))
        login = {"client-certificate": str(cert.absolute()), "client-key": str(key.absolute())}
        return write_kubeconfig(self.directory / f"{name}.kubeconfig", kubeconfig(self.url, self.ca.absolute(), login))

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """A token of a ServiceAccount, which must exist."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return str(self.api.create(path, body)["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a fresh token of a ServiceAccount."""
        token = self.service_account_token(namespace, name)
        path = self.directory / f"sa-{namespace}-{name}.kubeconfig"
        return write_kubeconfig(path, kubeconfig(self.url, self.ca.absolute(), {"token": token}))

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl as the admin, or as another kubeconfig's owner; return its output, raise on failure."""
        build.ensure(() if shutil.which("kubectl") else ("kubectl",))
        command = [build.kubectl(), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments]
        env = {**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache")}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """Stop everything and remove every file."""
        # etcd need not write its last state: the directory goes.
        self.supervisor.stop_all(grace=2)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _make_credentials(self) -> Credentials:
        return Credentials(
            ca=self.ca,
            ca_key=self._authority.directory / "ca.key",
            serving=self._authority.certificate(
                "apiserver", "/CN=kube-apiserver", controlplane.server_names(self.endpoint)
            ),
            kubelet_client=self._authority.certificate(
                "kubelet-client", user_subject("kube-apiserver", ["system:masters"])
            ),
            service_account=self._authority.signing_key("service-account"),
            tokens=self._authority.write_tokens(list(self.identities.values())),
        )

    def server_certificate(self, name: str, names: Sequence[str]) -> tuple[Path, Path]:
        """A serving certificate of this cluster's authority."""
        return self._authority.certificate(name, f"/CN={name}", names)

    def _remembered_endpoint(self, given: Endpoint | None) -> Endpoint:
        path = self.directory / "endpoint.json"
        if path.exists():
            return Endpoint(**json.loads(path.read_text()))
        endpoint = given or Endpoint("127.0.0.1", *free_ports(3))
        path.write_text(json.dumps(endpoint.__dict__))
        return endpoint

    def _remembered_identities(self) -> dict[str, Identity]:
        path = self._authority.directory / "identities.json"
        if not path.exists():
            made = {name: Identity(user, groups) for name, (user, groups) in IDENTITIES.items()}
            path.touch(mode=0o600)
            path.write_text(json.dumps({name: identity.__dict__ for name, identity in made.items()}))
        stored = json.loads(path.read_text())
        return {name: Identity(one["user"], tuple(one["groups"]), one["token"]) for name, one in stored.items()}


def start_apiserver(
    directory: Path, *, controllers: bool = False, kwok_nodes: int = 0, kwok_stages: Path = KWOK_STAGES
) -> ControlPlane:
    """Start the apiserver tier in an empty directory; the caller stops it.

    `controllers` adds the controller-manager and the scheduler, `kwok_nodes` that many fake nodes (which need them),
    whose pods do what `kwok_stages` says.
    The processes die with this one, even when it is killed.
    """
    packages.ensure_packages(packages.APISERVER_TIER, print)
    wanted = [*build.APISERVER_TIER]
    wanted += build.CONTROLLERS if controllers or kwok_nodes else ()
    wanted += ["kwok"] if kwok_nodes else []
    build.ensure(wanted, print)
    plane = ControlPlane(directory, Supervisor(directory, detached=False))
    try:
        plane.start()
        if controllers or kwok_nodes:
            plane.start_controllers()
        if kwok_nodes:
            plane.start_kwok(kwok_nodes, kwok_stages)
    except BaseException:
        plane.supervisor.stop_all(grace=1)  # the logs stay for whoever reads the error
        raise
    return plane


@contextlib.contextmanager
def running_apiserver(
    directory: Path, *, controllers: bool = False, kwok_nodes: int = 0, kwok_stages: Path = KWOK_STAGES
) -> Iterator[ControlPlane]:
    """`start_apiserver` for a `with` block."""
    plane = start_apiserver(directory, controllers=controllers, kwok_nodes=kwok_nodes, kwok_stages=kwok_stages)
    try:
        yield plane
    finally:
        plane.stop()


__all__ = ["ControlPlane", "fake_node", "running_apiserver", "start_apiserver"]
