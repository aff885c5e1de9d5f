"""The node tier on this machine: a control plane, one node, and everything it takes to remove them again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import build, cgroups, cleanup, images, network, node, packages, storage, web
from e2e.cluster.apiserver import ControlPlane, free_ports
from e2e.cluster.controlplane import Endpoint
from e2e.cluster.errors import ClusterError
from e2e.cluster.lock import locked
from e2e.cluster.mesh import Mesh
from e2e.cluster.mesh.running import SERVICES as MESH_SERVICES
from e2e.cluster.paths import Layout, cache_root
from e2e.cluster.process import Service, Supervisor
from e2e.cluster.wait import wait_for

API_PORT = 6443
GATEWAY_PORT = 80
Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class Component:
    """A row of `status`."""

    name: str
    pid: int | None
    ready: bool
    log: Path


class LocalCluster:
    """The one node-tier cluster of a cache directory; every method can be repeated."""

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = layout or Layout(cache_root())
        self.supervisor = Supervisor(self.layout.run, detached=True)
        self._surroundings = self.layout.run / "surroundings.json"
        self._namespace = self.layout.run / "network-namespace"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig; the cluster must be up."""
        if not self.is_up():
            raise ClusterError("The cluster is not up: start it with `python -m e2e.cluster up`.")
        return self.layout.kubeconfig

    @property
    def plane(self) -> ControlPlane:
        """The control plane, for its kubeconfigs, audit log and helpers; the cluster must be up."""
        if not self.is_up():
            raise ClusterError("The cluster is not up: start it with `python -m e2e.cluster up`.")
        return self._control_plane()

    def is_up(self) -> bool:
        """Whether `up` came to its end here and `down` was not called since."""
        return self.layout.kubeconfig.exists()

    @property
    def mesh(self) -> Mesh:
        """Istio, its gateway and Prometheus; the cluster must be up with them."""
        if not (self.is_up() and self.has_mesh()):
            raise ClusterError("The cluster has no mesh: start it with `python -m e2e.cluster up --mesh`.")
        return self._mesh(self._control_plane())

    def has_mesh(self) -> bool:
        """Whether `up` was asked for a mesh here and `down` was not called since."""
        return self.layout.mesh.exists()

    def _mesh(self, plane: ControlPlane) -> Mesh:
        return Mesh(plane, self.layout.mesh, network.NODE_IP, GATEWAY_PORT, self._start_inside)

    def _control_plane(self) -> ControlPlane:
        endpoint = Endpoint(network.HOST_IP, API_PORT, *free_ports(2))
        return ControlPlane(self.layout.run / "control-plane", self.supervisor, endpoint)

    def up(self, step: Step, *, mesh: bool = False) -> Path:
        """Bring the cluster up, or what of it is missing; return the admin's kubeconfig.

        `mesh` adds Istio, its gateway and Prometheus, which stay until `down`.
        """
        _require_root()
        with locked(self.layout.lock):
            return self._up(step, mesh or self.has_mesh())

    def _up(self, step: Step, mesh: bool) -> Path:
        with step("Debian packages") as note:
            packages.ensure_packages(packages.NODE_TIER, note)
        with step("programs") as note:
            build.ensure([*build.node_tier(), *(build.MESH if mesh else ())], note)
        run = self.layout.run
        run.mkdir(parents=True, exist_ok=True)
        cleanup.remember_surroundings(self._surroundings)
        with step("network"):
            network.set_up(self._namespace)
        plane = self._control_plane()
        plane.launch()
        with step("containerd"):
            self._start_containerd()
        with step("etcd and kube-apiserver"):
            plane.wait_ready()
        with step("controller-manager and scheduler"):
            recycler = run / "recycler.json"
            write(recycler, json.dumps(storage.recycler_pod()))
            plane.start_controllers(recycler)
        with step("volumes"):
            storage.prepare_folders(self.layout.volumes)
            storage.apply_objects(plane.api, self.layout.volumes)
        with step("kubelet"):
            self._start_kubelet(plane)
        with step("DNS"):
            self._start_dns(plane)
        with step("node"):
            # Ready implies that the node's address is known; kube-proxy would end, to start anew, when it changed.
            plane.wait("kubelet", lambda: plane.node_ready(node.NODE_NAME))
        with step("kube-proxy"):
            self._start_proxy(plane)
        if mesh:
            self._mesh(plane).up(step)
        if not self.layout.kubeconfig.exists():
            self.layout.kubeconfig.symlink_to(plane.kubeconfig)
        return self.layout.kubeconfig

    def _start_inside(self, service: Service) -> None:
        self.supervisor.start(Service(service.name, network.inside(self._namespace, service.argv), service.env))

    def _start_containerd(self) -> None:
        run, socket = self.layout.run, self.layout.containerd_socket
        (run / "cni").mkdir(exist_ok=True)
        write(run / "cni" / "10-tunewright.conflist", json.dumps(network.cni_config(run / "ipam")))
        config = run / "containerd.toml"
        write(config, node.containerd_config(run, self.layout.images))
        self._start_inside(node.containerd(config))
        self._wait("containerd", lambda: images.answers(socket))
        present = images.list_images(socket)
        for name, program in ((node.PAUSE_IMAGE, "pause"), (node.PROBE_IMAGE, "probe")):
            # The images outlive `down`, so an older program may be there under the same name.
            archive = images.scratch_image(name, build.binary(program))
            marker = self.layout.images / f"{program}.sha256"
            digest = images.digest(archive)
            if name not in present or not marker.exists() or marker.read_text() != digest:
                images.load_bytes(socket, archive)
                marker.write_text(digest)

    def _start_kubelet(self, plane: ControlPlane) -> None:
        run = self.layout.run
        cgroups.create(node.CGROUP)
        (run / "resolv.conf").touch()
        serving = plane.server_certificate("kubelet", [f"IP:{network.NODE_IP}", f"DNS:{node.NODE_NAME}"])
        config = run / "kubelet.json"
        write(config, json.dumps(node.kubelet_config(run, plane.ca, serving)))
        self._start_inside(node.kubelet(run, config, plane.component_kubeconfig("kubelet")))
        self._wait("kubelet", lambda: web.answers(f"http://{network.NODE_IP}:10248/healthz"))

    def _start_dns(self, plane: ControlPlane) -> None:
        corefile = self.layout.run / "Corefile"
        for path, manifest in network.dns_objects():
            plane.api.apply(path, manifest)
        write(corefile, network.corefile(plane.component_kubeconfig("coredns")))
        self._start_inside(node.coredns(corefile))
        self._wait("coredns", self._checks()["coredns"])

    def _start_proxy(self, plane: ControlPlane) -> None:
        config = self.layout.run / "kube-proxy.json"
        kubeconfig = plane.component_kubeconfig("kube-proxy")
        write(config, json.dumps(network.kube_proxy_config(kubeconfig, node.NODE_NAME)))
        self._start_inside(node.kube_proxy(config))
        self._wait("kube-proxy", self._checks()["kube-proxy"])

    def _wait(self, name: str, check: Callable[[], bool]) -> None:
        def guarded() -> bool:
            self.supervisor.require(name)
            return check()

        wait_for(f"{name} ready", guarded, 60, hint=lambda: self.supervisor.tail(name))

    def _checks(self) -> dict[str, Callable[[], bool]]:
        """How to ask each component whether it is ready, in the order of `up`."""

        def alive(name: str) -> Callable[[], bool]:
            return lambda: self.supervisor.pid(name) is not None

        address = network.NODE_IP
        mesh = self._mesh(self._control_plane()).checks() if self.has_mesh() else {}
        return {
            "etcd": alive("etcd"),
            "kube-apiserver": self._api_ready,
            "containerd": lambda: images.answers(self.layout.containerd_socket),
            "kube-controller-manager": alive("kube-controller-manager"),
            "kube-scheduler": alive("kube-scheduler"),
            "kubelet": lambda: self.plane.node_ready(node.NODE_NAME),
            "kube-proxy": lambda: web.answers(f"http://{address}:10256/healthz"),
            "coredns": lambda: web.answers(f"http://{address}:8181/ready"),
            **mesh,
        }

    def _api_ready(self) -> bool:
        return self.plane.api.ready()

    def status(self) -> Iterator[Component]:
        """Every component with its pid and whether it is ready."""
        for name, check in self._checks().items():
            pid = self.supervisor.pid(name)
            try:
                ready = pid is not None and check()
            except (ClusterError, OSError):
                ready = False
            yield Component(name, pid, ready, self.supervisor.log(name))

    def load_image(self, archive: str) -> list[str]:
        """Load an image archive into the cluster's containerd; return the names of its images."""
        if self.supervisor.pid("containerd") is None:
            raise ClusterError("The cluster is not up: start it with `python -m e2e.cluster up`.")
        return images.load_file(self.layout.containerd_socket, archive, self.layout.images / "loaded.json")

    def image_names(self) -> list[str]:
        """The images that are loaded."""
        return images.list_images(self.layout.containerd_socket)

    def down(self, step: Step) -> None:
        """Remove the cluster: processes, pods, network, mounts, files. Loaded images stay in the cache."""
        _require_root()
        with locked(self.layout.lock):
            self._down(step)

    def _down(self, step: Step) -> None:
        run = self.layout.run
        if self.has_mesh():
            with step("mesh"):
                for name in reversed(MESH_SERVICES):
                    self.supervisor.stop(name)
        with step("kubelet, kube-proxy and DNS"):
            for name in ("coredns", "kube-proxy", "kubelet"):
                self.supervisor.stop(name)
        with step("pods and containerd"):
            cgroups.kill(node.CGROUP)
            if self.supervisor.pid("containerd"):
                images.remove_containers(self.layout.containerd_socket)
            self.supervisor.stop("containerd")
            cleanup.kill_shims(self.layout.containerd_socket)
            cgroups.remove(node.CGROUP)
        with step("control plane"):
            self.supervisor.stop_all(grace=3)
        with step("network, mounts and files"):
            network.tear_down(self._namespace)
            cleanup.unmount_below(run)
            cleanup.restore_surroundings(self._surroundings, run)
            _keep_logs(run / "logs", self.layout.last_logs)
            if cleanup.mounts_below(run, Path("/proc/self/mounts").read_text()):
                raise ClusterError(f"Something is still mounted below {run}: unmount it and run this again.")
            shutil.rmtree(run, ignore_errors=not run.exists())

    def forget_images(self) -> None:
        """Remove every loaded image; only while the cluster is down."""
        if self.supervisor.pid("containerd"):
            raise ClusterError("The cluster is up: run `python -m e2e.cluster down` first.")
        cleanup.unmount_below(self.layout.images)
        shutil.rmtree(self.layout.images, ignore_errors=True)


def write(path: Path, text: str) -> None:
    """Write a file unless it says so already: kube-proxy ends when its configuration is touched."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _keep_logs(source: Path, target: Path) -> None:
    if source.exists():
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)


def _require_root() -> None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise ClusterError(
            "The local cluster needs root on Linux. Elsewhere use CLUSTER=kind, or CLUSTER=kubeconfig with KUBECONFIG "
            "set to the kubeconfig of a cluster that you have."
        )
