"""The throw-away cluster itself: control planes side by side, Jobs on simulated nodes, and the full node.

The tests of the full node print how long `up` took; nothing here fails because a machine is slow.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import build, images
from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.cgroups import hierarchies
from e2e.cluster.controlplane import fake_node
from e2e.cluster.errors import ClusterError
from e2e.cluster.fixtures import CLUSTER_WAS_UP, ApiServerFactory
from e2e.cluster.local import LocalCluster
from e2e.cluster.node import PROBE_IMAGE
from e2e.cluster.progress import step
from e2e.cluster.wait import wait_for


def test_the_apiserver_is_ready_and_audited(apiserver: ControlPlane) -> None:
    mark = apiserver.audit.mark()
    apiserver.kubectl("create", "configmap", "noted", "-n", "default", "--from-literal=a=b")
    wait_for("audit line", lambda: apiserver.audit.writes(user="tunewright-admin", since=mark), 10)
    (event,) = apiserver.audit.events(verbs={"create"}, resource="configmaps", since=mark)
    assert (event.user, event.name, event.namespace, event.code) == ("tunewright-admin", "noted", "default", 201)


def test_users_have_the_rights_that_they_were_given(apiserver: ControlPlane) -> None:
    jane = apiserver.kubeconfig_for("jane", ["team-a"])
    with pytest.raises(ClusterError, match='User "jane" cannot list resource "secrets"'):
        apiserver.kubectl("get", "secrets", kubeconfig=jane)
    apiserver.kubectl("create", "clusterrole", "reader", "--verb=list", "--resource=configmaps")
    apiserver.kubectl("create", "clusterrolebinding", "team-a", "--clusterrole=reader", "--group=team-a")
    wait_for("right to read", lambda: _succeeds(apiserver, "get", "configmaps", kubeconfig=jane), 10)


def test_a_service_account_can_log_in(apiserver: ControlPlane) -> None:
    apiserver.kubectl("create", "serviceaccount", "robot", "-n", "default")
    login = apiserver.service_account_kubeconfig("default", "robot")
    who = json.loads(apiserver.kubectl("auth", "whoami", "-o", "json", kubeconfig=login))
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"


def test_pod_security_is_enforced(apiserver_with_nodes: ControlPlane) -> None:
    plane = apiserver_with_nodes
    plane.kubectl("create", "namespace", "strict")
    plane.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    account = "/api/v1/namespaces/strict/serviceaccounts/default"
    wait_for("service account", lambda: plane.exists(account), 20)
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        plane.kubectl("run", "loose", "-n", "strict", "--image=anything")


def test_two_control_planes_run_side_by_side(apiserver_factory: ApiServerFactory) -> None:
    first, second = apiserver_factory(), apiserver_factory()
    assert first.url != second.url
    first.kubectl("create", "namespace", "only-here")
    assert first.exists("/api/v1/namespaces/only-here")
    assert not second.exists("/api/v1/namespaces/only-here")
    pids = [first.supervisor.pid(name) for name in ("etcd", "kube-apiserver")]
    first.stop()
    assert not first.directory.exists()
    assert all(pid is not None and not Path(f"/proc/{pid}").exists() for pid in pids)
    assert second.api.ready()


def test_a_job_completes_on_simulated_nodes_with_gpus(apiserver_with_nodes: ControlPlane) -> None:
    plane = apiserver_with_nodes
    plane.add_nodes(fake_node("gpu-0", {"nvidia.com/gpu": "8"}, {"gpu": "a100"}))
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "default"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "nodeSelector": {"gpu": "a100"},
                    "containers": [
                        {"name": "main", "image": "any", "resources": {"limits": {"nvidia.com/gpu": "4"}}},
                    ],
                }
            },
        },
    }
    plane.api.create("/apis/batch/v1/namespaces/default/jobs", job)
    plane.kubectl("wait", "--for=condition=Complete", "job/train", "--timeout=60s")
    pods = plane.api.get("/api/v1/namespaces/default/pods?labelSelector=job-name%3Dtrain")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"gpu-0"}


def _succeeds(plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None) -> bool:
    try:
        plane.kubectl(*arguments, kubeconfig=kubeconfig)
    except ClusterError:
        return False
    return True


# The full node.

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def probe_pod(name: str, *arguments: str, image: str = PROBE_IMAGE, claim: str = "") -> dict[str, Any]:
    """A pod of the probe image that passes Pod Security `restricted`; `claim` is mounted at /data."""
    container: dict[str, Any] = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "securityContext": RESTRICTED,
    }
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container], "enableServiceLinks": False}
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


class Namespace:
    """A namespace of the test's own that enforces Pod Security `restricted`."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane, self.name = plane, name
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        plane.api.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        )
        wait_for("service account", lambda: plane.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), 20)

    def kubectl(self, *arguments: str) -> str:
        return self.plane.kubectl("-n", self.name, *arguments)

    def create(self, manifest: dict[str, Any]) -> None:
        self.plane.kubectl("-n", self.name, "create", "-f", "-", stdin=json.dumps(manifest))

    def serve(self, name: str, text: str) -> None:
        """A running web server and a Service in front of it."""
        self.create(probe_pod(name, "serve", text))
        self.kubectl("expose", f"pod/{name}", "--port=80", "--target-port=8080")
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        service = self.plane.api.get(f"/api/v1/namespaces/{self.name}/services/{name}")
        address = (service["spec"]["clusterIP"], 80)

        def leads_there() -> bool:
            """Whether kube-proxy has heard of the pod: until then it refuses connections."""
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
                return True
            return False

        wait_for(f"Service {name}", leads_there, 30)

    def claim(self, name: str, storage_class: str, size: str) -> None:
        self.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": storage_class,
                    "resources": {"requests": {"storage": size}},
                },
            }
        )

    def run_to_end(self, name: str, *arguments: str, claim: str = "") -> tuple[str, str]:
        """Run a pod until it ends; return its phase and its log."""
        self.create(probe_pod(name, *arguments, claim=claim))

        def phase() -> str:
            path = f"/api/v1/namespaces/{self.name}/pods/{name}"
            now = str(self.plane.api.get(path)["status"].get("phase", ""))
            return now if now in ("Succeeded", "Failed") else ""

        return wait_for(f"end of pod {name}", phase, 60), self.kubectl("logs", name)


@pytest.fixture
def namespace(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    name = f"t-{abs(hash((request.node.name, time.time()))) % 10**8}"
    made = Namespace(cluster.plane, name)
    yield made
    cluster.plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.node
def test_every_component_is_ready(cluster: LocalCluster) -> None:
    assert {one.name: one.ready for one in cluster.status()} == dict.fromkeys(
        (one.name for one in cluster.status()), True
    )
    assert all(one.pid and one.log.exists() for one in cluster.status())


@pytest.mark.node
def test_up_again_changes_nothing(cluster: LocalCluster) -> None:
    before = {one.name: one.pid for one in cluster.status()}
    started = time.monotonic()
    cluster.up(step)
    print(f"up of a running cluster: {time.monotonic() - started:.1f} s")
    assert {one.name: one.pid for one in cluster.status()} == before


@pytest.mark.node
def test_pods_find_each_other_by_name_and_can_be_watched(namespace: Namespace) -> None:
    namespace.serve("web", "hello")
    assert namespace.run_to_end("asker", "get", f"http://web.{namespace.name}.svc.cluster.local") == (
        "Succeeded",
        "200\nhello\n",
    )
    assert namespace.kubectl("logs", "web") == "serving\n"
    # The pod reaches itself through its Service, too. (Its host name is `web`: the short name would not ask the DNS.)
    inside = namespace.kubectl("exec", "web", "--", "/probe", "get", f"http://web.{namespace.name}.svc")
    assert inside == "200\nhello\n"


@pytest.mark.node
def test_a_service_account_token_is_good_inside_a_pod(namespace: Namespace) -> None:
    phase, log = namespace.run_to_end("asker", "api", "/api/v1/namespaces/default/secrets")
    assert phase == "Succeeded"
    assert log.startswith("403\n")
    assert f"system:serviceaccount:{namespace.name}:default" in log


@pytest.mark.node
def test_a_volume_is_written_shared_and_given_back_empty(cluster: LocalCluster, namespace: Namespace) -> None:
    namespace.claim("data", "standard", "1Gi")
    assert namespace.run_to_end("writer", "write", "/data/file", "1000", claim="data")[0] == "Succeeded"
    claim = json.loads(namespace.kubectl("get", "pvc", "data", "-o", "json"))
    volume = claim["spec"]["volumeName"]
    folder = cluster.layout.volumes / volume
    assert [path.stat().st_size for path in folder.iterdir()] == [1000]
    namespace.kubectl("delete", "pod/writer", "pvc/data", "--now")

    def given_back() -> bool:
        return bool(cluster.plane.api.get(f"/api/v1/persistentvolumes/{volume}")["status"]["phase"] == "Available")

    wait_for("volume given back", given_back, 60)
    assert not list(folder.iterdir())


@pytest.mark.node
def test_a_small_volume_runs_full(namespace: Namespace) -> None:
    namespace.claim("data", "small", "16Mi")
    phase, log = namespace.run_to_end("writer", "write", "/data/file", str(20 * 1024 * 1024), claim="data")
    assert phase == "Failed"
    assert "no space left on device" in log


def docker_archive(name: str) -> bytes:
    return images.scratch_image(name, build.binary("probe"))


def oci_archive(name: str) -> bytes:
    """The same image as an OCI layout, made from the docker-archive."""
    with tarfile.open(fileobj=io.BytesIO(docker_archive(name))) as source:
        parts = {member.name: source.extractfile(member).read() for member in source}  # type: ignore[union-attr]
    config, layer = parts["config.json"], parts["layer.tar"]
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = images.digest(content)
        blobs[f"blobs/sha256/{digest}"] = content
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(config, "config.v1+json"),
        "layers": [blob(layer, "layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **blobs,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.node
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("tunewright.io/test-docker:1", docker_archive, False), id="docker-archive from a file"),
        pytest.param(("tunewright.io/test-oci:1", oci_archive, False), id="OCI archive from a file"),
        pytest.param(("tunewright.io/test-stream:1", docker_archive, True), id="docker-archive from a pipe"),
    ],
)
def test_an_image_is_loaded_and_runs(
    cluster: LocalCluster, namespace: Namespace, tmp_path: Path, given: tuple[str, Callable[[str], bytes], bool]
) -> None:
    name, make, streamed = given
    archive = tmp_path / "image.tar"
    archive.write_bytes(make(name))
    command = [sys.executable, "-m", "e2e.cluster", "load-image", "-" if streamed else str(archive)]
    with archive.open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    assert name in cluster.image_names()
    namespace.create(probe_pod("it", "serve", "x", image=name))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/it", "--timeout=60s")


@pytest.mark.node
def test_a_killed_component_comes_back_with_up(cluster: LocalCluster, namespace: Namespace) -> None:
    namespace.serve("web", "hello")
    for name in ("kubelet", "containerd", "kube-controller-manager"):
        cluster.supervisor.stop(name, grace=0)
    assert not all(one.ready for one in cluster.status())
    cluster.up(step)
    assert all(one.ready for one in cluster.status())
    assert namespace.run_to_end("asker", "get", "http://web")[1] == "200\nhello\n"


def surroundings(cluster: LocalCluster) -> dict[str, set[str]]:
    """Everything outside the cache that a cluster could leave behind."""

    def lines(*command: str) -> set[str]:
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return {line for line in output.splitlines() if not line.startswith("#")}

    # Other control planes may come and go on the machine meanwhile: ours is known by its directory.
    ours = (str(cluster.layout.run), " /pause", " /probe ")
    processes = lines("ps", "-eo", "pid=,stat=,args=")
    settings = [Path("/proc/sys") / name for name in ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")]
    mounts = Path("/proc/mounts").read_text()
    folders = ("/run", "/run/containerd", "/run/netns", "/var/log", "/var/lib", "/var/lib/cni", "/opt", "/etc")
    return {
        "processes": {line for line in processes if any(word in line for word in ours)},
        "mounts": {" ".join(line.split()[:3]) for line in mounts.splitlines()},
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "routes": lines("ip", "route"),
        "iptables": lines("iptables-save") | lines("ip6tables-save"),
        "cgroups": {str(p) for root in hierarchies(mounts) for p in root.rglob("tunewright*") if p.is_dir()},
        "settings": {f"{path}={path.read_text().strip()}" for path in settings},
        "files": {f"{folder}/{p.name}" for folder in folders if Path(folder).is_dir() for p in Path(folder).iterdir()},
    }


@pytest.mark.node
def test_down_leaves_nothing(cluster: LocalCluster, request: pytest.FixtureRequest) -> None:
    if request.config.stash.get(CLUSTER_WAS_UP, True):
        pytest.skip("the cluster ran before the tests and is left alone")
    cluster.down(step)
    before = surroundings(cluster)
    started = time.monotonic()
    cluster.up(step, mesh=True)
    print(f"up with everything cached: {time.monotonic() - started:.1f} s")
    namespace = Namespace(cluster.plane, "left-behind")
    namespace.claim("data", "standard", "1Gi")
    namespace.create(probe_pod("running", "serve", "x", claim="data"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/running", "--timeout=60s")
    assert surroundings(cluster) != before
    cluster.down(step)
    assert surroundings(cluster) == before
    assert not cluster.layout.run.exists()
    cluster.down(step)  # again: nothing to do, nothing to complain about
    assert surroundings(cluster) == before
