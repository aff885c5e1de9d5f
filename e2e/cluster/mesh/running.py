"""A running mesh beside a control plane: istiod, Envoy as its ingress gateway, and Prometheus.

All three listen on one address that is not a loopback, so that Endpoints may name it: on the apiserver tier one of
`pod_addresses`, on the node tier the node's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster import build, web
from e2e.cluster.apiserver import ControlPlane, free_ports
from e2e.cluster.errors import ClusterError
from e2e.cluster.mesh import envoy, istio, prometheus
from e2e.cluster.process import Service
from e2e.cluster.progress import step as print_step
from e2e.cluster.rest import ApiError
from e2e.cluster.wait import wait_for

SCRAPE_INTERVAL = "1s"
SERVICES = ("istiod", "prometheus", "envoy")
Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class Mesh:
    """istiod, Envoy and Prometheus on `address`, with their files in `directory`; Envoy serves on `gateway_port`.

    `start` runs a service, watched by the control plane's supervisor.
    """

    plane: ControlPlane = field(repr=False)
    directory: Path
    address: str
    gateway_port: int
    start: Callable[[Service], object] = field(repr=False)

    @property
    def gateway_url(self) -> str:
        """Where requests from outside enter the mesh."""
        return f"http://{self.address}:{self.gateway_port}"

    @property
    def prometheus_url(self) -> str:
        """Prometheus for this machine and for pods."""
        return f"http://{self.address}:{prometheus.PORT}"

    @property
    def envoy_admin_url(self) -> str:
        """Envoy's admin interface: /config_dump, /clusters, /stats."""
        return f"http://{self.address}:{envoy.ADMIN_PORT}"

    @property
    def istiod_url(self) -> str:
        """istiod's readiness, metrics and debugging pages."""
        return f"http://{self.address}:{istio.HTTP_PORT}"

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The samples of an instant query, each with `metric` (its labels) and `value` ([time, text])."""
        question = urllib.parse.urlencode({"query": promql})
        try:
            return prometheus.result(*web.ask(f"{self.prometheus_url}/api/v1/query?{question}"))
        except ValueError as error:
            raise ClusterError(f"Prometheus refuses {promql!r}: {error}") from None

    def add_target(self, job: str, address: str, *, path: str = "/metrics", **labels: str) -> None:
        """Let Prometheus scrape a process that is no pod, at HOST:PORT, from now on."""
        (self._targets / f"{job}.json").write_text(prometheus.target_file(job, address, path, labels))

    def add_rules(self, *files: Path) -> None:
        """Let Prometheus evaluate these rule files, too; a wrong one raises ClusterError and changes nothing."""
        checked = subprocess.run(prometheus.check_rules_command(files), capture_output=True, text=True, check=False)
        if checked.returncode:
            raise ClusterError(f"Prometheus refuses {', '.join(map(str, files))}: {checked.stderr.strip()}")
        for file in files:
            (self._rules / f"{file.stem}.yaml").write_text(file.read_text())
        status, body = web.ask(f"{self.prometheus_url}/-/reload", method="POST")
        if status != 200:
            raise ClusterError(f"Prometheus could not read its configuration anew: {body.strip()}")

    def analyze(self, *files: Path, namespace: str | None = None, threshold: str = "Warning") -> list[dict[str, Any]]:
        """What `istioctl analyze` finds in manifest files alone, or with `namespace` in the cluster plus the files.

        Some checks, those of Services among them, want the cluster. A finding has `code`, `level`, `message` and
        `origin`; those below `threshold` (Info, Warning or Error) are left out.
        """
        live = (self.plane.kubeconfig, namespace) if namespace else None
        command = istio.analyze_command(self._mesh_config, files, live)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return istio.findings(done.stdout, threshold)
        except ValueError:
            raise ClusterError(f"istioctl analyze failed: {done.stderr.strip() or done.stdout.strip()}") from None

    def checks(self) -> dict[str, Callable[[], bool]]:
        """How to ask each service whether it is ready."""
        return {
            "istiod": lambda: web.answers(f"{self.istiod_url}/ready"),
            # Without a route the gateway answers 404: then it listens, and has got its routes.
            "envoy": lambda: web.answers(f"{self.envoy_admin_url}/ready") and web.status(self.gateway_url) > 0,
            "prometheus": lambda: web.answers(f"{self.prometheus_url}/-/ready"),
        }

    def up(self, step: Step, *, scrape_interval: str = SCRAPE_INTERVAL) -> None:
        """Start what does not run, and return when everything is ready; `step` shows how long each part takes."""
        self._write_files(scrape_interval)
        kubeconfig = self._kubeconfig("istiod")
        self.start(istio.istiod(self.address, kubeconfig, self._mesh_config))
        self.start(prometheus.prometheus(self.address, self._file("prometheus.json"), self.directory / "data"))
        with step("Istio's CRDs and the gateway's objects"):
            self._apply()
        with step("istiod"):
            self._wait("istiod")
        # Envoy backs off when nobody answers, so it starts when istiod does.
        self.start(envoy.envoy(self._file("envoy.json")))
        with step("Envoy"):
            self._wait("envoy")
        with step("Prometheus"):
            self._wait("prometheus")

    def stop(self) -> None:
        """Stop the three services."""
        for name in reversed(SERVICES):
            self.plane.supervisor.stop(name, grace=3)

    @property
    def _mesh_config(self) -> Path:
        return self._file("mesh.json")

    @property
    def _rules(self) -> Path:
        return self.directory / "rules"

    @property
    def _targets(self) -> Path:
        return self.directory / "targets"

    def _file(self, name: str) -> Path:
        return self.directory / name

    def _kubeconfig(self, name: str) -> Path:
        return self.plane.kubeconfig_for(f"system:{name}", ["system:masters"])

    def _write_files(self, scrape_interval: str) -> None:
        for folder in (self._rules, self._targets):
            folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "mesh.json": istio.mesh_config(),
            "envoy.json": envoy.bootstrap(self.address),
            "prometheus.json": prometheus.configuration(
                self._kubeconfig("prometheus"),
                f"{self.address}:{envoy.ADMIN_PORT}",
                rules=self._rules,
                targets=self._targets,
                interval=scrape_interval,
            ),
        }
        for name, content in contents.items():
            self._file(name).write_text(json.dumps(content, indent=1))

    def _apply(self) -> None:
        for name in ("istio-crds.yaml", "gateway-api-crds.yaml"):
            for path, manifest in istio.definitions(build.binary(name).read_text()):
                self.plane.api.apply(path, manifest)
        for name in (istio.NAMESPACE, prometheus.NAMESPACE):
            meta = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.plane.api.apply(f"/api/v1/namespaces/{name}", meta)
        for path, manifest in (*istio.objects(self.address, self.gateway_port), *prometheus.objects(self.address)):
            # A new CRD is not served at once.
            wait_for(f"{path} applied", functools.partial(self._applied, path, manifest), 30)

    def _applied(self, path: str, manifest: dict[str, Any]) -> bool:
        try:
            self.plane.api.apply(path, manifest)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    def _wait(self, name: str) -> None:
        self.plane.wait(name, self.checks()[name], timeout=120)


@contextlib.contextmanager
def running_mesh(
    plane: ControlPlane,
    directory: Path,
    address: str,
    *,
    scrape_interval: str = SCRAPE_INTERVAL,
    step: Step = print_step,
) -> Iterator[Mesh]:
    """A mesh beside the apiserver tier while the block runs, on an `address` of `pod_addresses`."""
    build.ensure(build.MESH, print)
    (port,) = free_ports(1)
    mesh = Mesh(plane, directory, address, port, plane.supervisor.start)
    try:
        mesh.up(step, scrape_interval=scrape_interval)
        yield mesh
    finally:
        mesh.stop()
