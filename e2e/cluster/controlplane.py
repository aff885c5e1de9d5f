"""Command lines of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok.

Everything here is pure; `apiserver.py` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.build import binary
from e2e.cluster.process import Service

SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
KWOK_ANNOTATION = "kwok.x-k8s.io/node"
KWOK_STAGES = Path(__file__).parent / "kwok-stages.yaml"
READ_VERBS = ["get", "list", "watch"]
# Kinds whose history tests read: the audit log keeps each version of them.
RECORDED = {
    "networking.istio.io": ["virtualservices"],
    "gateway.networking.k8s.io": ["httproutes"],
    "tunewright.io": ["inferenceservices/status"],
}


@dataclass(frozen=True)
class Endpoint:
    """Where a control plane listens: the address of its API and its ports."""

    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.api_port}"

    @property
    def loopback(self) -> bool:
        return self.address.startswith("127.")


@dataclass(frozen=True)
class Credentials:
    """The files that the apiserver and the controllers are given."""

    ca: Path
    ca_key: Path
    serving: tuple[Path, Path]
    kubelet_client: tuple[Path, Path]
    service_account: tuple[Path, Path]
    tokens: Path


def server_names(endpoint: Endpoint) -> list[str]:
    """The names for which the apiserver's certificate is good."""
    dns = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    names = [f"DNS:{name}" for name in (*dns, "kubernetes.default.svc.cluster.local")]
    return names + [f"IP:{ip}" for ip in dict.fromkeys(("127.0.0.1", endpoint.address, API_SERVICE_IP))]


def audit_policy() -> dict[str, Any]:
    """Log every request at Metadata level, but for what the control plane reads all day; RECORDED with its objects."""
    system = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"]
    beside = ["system:coredns", "system:kwok", "system:istiod", "system:prometheus"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": [*system, *beside], "verbs": READ_VERBS},
            {"level": "None", "userGroups": ["system:nodes"], "verbs": READ_VERBS},
            {
                "level": "None",
                "userGroups": ["system:serviceaccounts:kube-system"],
                "verbs": READ_VERBS,
            },
            {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*", "/openapi/*"]},
            {
                "level": "RequestResponse",
                "verbs": ["create", "update", "patch"],
                "resources": [{"group": group, "resources": kinds} for group, kinds in RECORDED.items()],
            },
            {"level": "Metadata"},
        ],
    }


def etcd(directory: Path, endpoint: Endpoint) -> Service:
    """etcd on the loopback; nothing here must survive a power cut, so it never waits for the disk."""
    client = f"http://127.0.0.1:{endpoint.etcd_port}"
    peer = f"http://127.0.0.1:{endpoint.etcd_peer_port}"
    argv = (
        "etcd",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
        "--logger=zap",
    )
    return Service("etcd", argv)


def kube_apiserver(directory: Path, endpoint: Endpoint, credentials: Credentials) -> Service:
    """The API: Node and RBAC authorization, service-account tokens, an audit log, Pod Security by default."""
    private, public = credentials.service_account
    argv = [
        str(binary("kube-apiserver")),
        f"--bind-address={endpoint.address}",
        f"--advertise-address={endpoint.address}",
        f"--secure-port={endpoint.api_port}",
        f"--etcd-servers=http://127.0.0.1:{endpoint.etcd_port}",
        f"--cert-dir={directory / 'apiserver'}",
        f"--tls-cert-file={credentials.serving[0]}",
        f"--tls-private-key-file={credentials.serving[1]}",
        f"--client-ca-file={credentials.ca}",
        f"--token-auth-file={credentials.tokens}",
        f"--kubelet-client-certificate={credentials.kubelet_client[0]}",
        f"--kubelet-client-key={credentials.kubelet_client[1]}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--audit-policy-file={directory / 'audit-policy.json'}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--audit-log-maxsize=1024",
        "--profiling=false",
        # Debian's etcd 3.4 cannot report progress on a watch, which streamed lists need; switched off, clients fall
        # back to plain lists at once instead of starting their watches again and again.
        "--feature-gates=WatchList=false",
    ]
    if endpoint.loopback:
        # Endpoints must not be loopback addresses; without pods nobody asks for the Service `kubernetes`.
        argv.append("--endpoint-reconciler-type=none")
    return Service("kube-apiserver", tuple(argv))


def kube_controller_manager(
    port: int, kubeconfig: Path, credentials: Credentials, recycler: Path | None = None
) -> Service:
    """The controllers, quick enough for hundreds of Jobs at once.

    `recycler` is the file of the pod that empties a hostPath volume when its claim is gone.
    """
    recycling = (f"--pv-recycler-pod-template-filepath-hostpath={recycler}",) if recycler else ()
    argv = (
        str(binary("kube-controller-manager")),
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--root-ca-file={credentials.ca}",
        f"--service-account-private-key-file={credentials.service_account[0]}",
        f"--cluster-signing-cert-file={credentials.ca}",
        f"--cluster-signing-key-file={credentials.ca_key}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-job-syncs=20",
        *recycling,
    )
    return Service("kube-controller-manager", argv)


def kube_scheduler(port: int, kubeconfig: Path) -> Service:
    """The scheduler."""
    argv = (
        str(binary("kube-scheduler")),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )
    return Service("kube-scheduler", argv)


def kwok(port: int, kubeconfig: Path, home: Path, stages: Path = KWOK_STAGES) -> Service:
    """kwok plays the kubelet of every node that carries its annotation, as the `stages` say."""
    argv = (
        str(binary("kwok")),
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={KWOK_ANNOTATION}=fake",
        "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{port}",
    )
    # Without a home of its own kwok would read the user's ~/.kwok.
    return Service("kwok", argv, {"KWOK_WORKDIR": str(home)})


def fake_node(
    name: str, allocatable: dict[str, str] | None = None, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """A Node for kwok; `allocatable` adds to or overrides 64 CPUs, 1 TiB of memory and 250 pods."""
    resources = {"cpu": "64", "memory": "1Ti", "ephemeral-storage": "2Ti", "pods": "250", **(allocatable or {})}
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {KWOK_ANNOTATION: "fake"},
            "labels": {**own, "type": "kwok", **(labels or {})},
        },
        "status": {"allocatable": resources, "capacity": resources},
    }
