"""The network of the node tier: a namespace of its own, tied to the machine by one virtual cable.

    machine 10.243.0.1 (apiserver) -- veth -- 10.243.0.2 node: bridge 10.244.0.1/24 -- pods
                                                              Services 10.96.0.0/16 (kube-proxy), DNS

Everything that kubelet, kube-proxy and the CNI plugins do to interfaces, routes and iptables happens inside the
namespace, so a firewall, Docker or another Kubernetes on the machine is never touched and one unmount removes it all.
The machine reaches pods and Services through two routes; pods reach the machine as 10.243.0.1.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2e.cluster.controlplane import SERVICE_CIDR
from e2e.cluster.errors import ClusterError

HOST_LINK = "tunewright0"
NODE_LINK = "uplink0"
HOST_IP = "10.243.0.1"
NODE_IP = "10.243.0.2"
POD_CIDR = "10.244.0.0/24"
BRIDGE = "pods0"
DNS_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"


def inside(namespace: Path, argv: Sequence[str]) -> tuple[str, ...]:
    """The command line, run in the network namespace (and in nothing else of its own)."""
    return ("nsenter", f"--net={namespace}", "--", *argv)


def setup_commands(namespace: Path) -> list[tuple[str, ...]]:
    """The commands that make the namespace, the cable and the routes."""
    ns = str(namespace)
    return [
        ("unshare", f"--net={ns}", "true"),
        ("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", ns),
        ("ip", "address", "add", f"{HOST_IP}/30", "dev", HOST_LINK),
        ("ip", "link", "set", HOST_LINK, "up"),
        inside(namespace, ("ip", "link", "set", "lo", "up")),
        inside(namespace, ("ip", "address", "add", f"{NODE_IP}/30", "dev", NODE_LINK)),
        inside(namespace, ("ip", "link", "set", NODE_LINK, "up")),
        inside(namespace, ("ip", "route", "add", "default", "via", HOST_IP)),
        inside(namespace, ("sysctl", "-qw", "net.ipv4.ip_forward=1")),
        ("ip", "route", "add", POD_CIDR, "via", NODE_IP, "dev", HOST_LINK),
        ("ip", "route", "add", SERVICE_CIDR, "via", NODE_IP, "dev", HOST_LINK),
    ]


def teardown_commands(namespace: Path) -> list[tuple[str, ...]]:
    """The commands that remove it; routes go with their interface, all else with the namespace."""
    return [("ip", "link", "delete", HOST_LINK), ("umount", "-l", str(namespace))]


def cni_config(ipam_directory: Path) -> dict[str, Any]:
    """A bridge for the pods; hairpin mode lets a pod reach itself through its Service."""
    return {
        "cniVersion": "0.4.0",
        "name": "tunewright",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(ipam_directory),
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kube_proxy_config(kubeconfig: Path, node: str) -> dict[str, Any]:
    """kube-proxy with iptables; it leaves the machine's connection-tracking limits alone."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node,
        "clusterCIDR": POD_CIDR,
        "detectLocalMode": "ClusterCIDR",
        "nodePortAddresses": ["primary"],
        "healthzBindAddress": f"{NODE_IP}:10256",
        "metricsBindAddress": f"{NODE_IP}:10249",
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "0s"},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def corefile(kubeconfig: Path) -> str:
    """CoreDNS for the cluster's own names; there is no outside to forward to."""
    return f""".:53 {{
    errors
    health {NODE_IP}:8080
    ready {NODE_IP}:8181
    cache 5
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
"""


def dns_objects() -> list[tuple[str, dict[str, Any]]]:
    """The Service of the DNS, with the node's address for an endpoint, and what CoreDNS may read: (path, object)."""
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": f"dns-{p.lower()}", "port": 53, "protocol": p} for p in ("UDP", "TCP")]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    return [
        (
            f"{rbac}/clusterroles/system:coredns",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "system:coredns"},
                "rules": rules,
            },
        ),
        (
            f"{rbac}/clusterrolebindings/system:coredns",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "system:coredns"},
                "roleRef": role,
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
            },
        ),
        (
            "/api/v1/namespaces/kube-system/services/kube-dns",
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": DNS_IP, "ports": ports}},
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
                "ports": ports,
            },
        ),
    ]


def set_up(namespace: Path) -> None:
    """Make the network, unless it is there and whole."""
    mounted = is_namespace(namespace)
    if mounted and is_complete():
        return
    if not mounted and link_exists():
        raise ClusterError(
            f"The interface {HOST_LINK} belongs to a cluster of another TUNEWRIGHT_CACHE: set that variable as it was "
            f"then and run `python -m e2e.cluster down`, or `ip link delete {HOST_LINK}` when nothing of it runs."
        )
    tear_down(namespace)  # half of an earlier one
    namespace.parent.mkdir(parents=True, exist_ok=True)
    namespace.touch()
    for command in setup_commands(namespace):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            tear_down(namespace)
            raise ClusterError(
                f"`{' '.join(command)}` failed: {done.stderr.strip()}. The kernel must offer network namespaces and "
                f"veth, and nothing else may use {HOST_IP}/30, {POD_CIDR} or {SERVICE_CIDR}."
            )


def tear_down(namespace: Path) -> None:
    """Remove the network; what is not there is fine."""
    if is_namespace(namespace):
        for command in teardown_commands(namespace):
            subprocess.run(command, capture_output=True, check=False)
    namespace.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """Whether a network namespace is mounted at `path`."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[:2] == ["nsfs", str(path)] for line in mounts)


def link_exists() -> bool:
    """Whether the machine's end of the cable is there."""
    return Path(f"/sys/class/net/{HOST_LINK}").exists()


def is_complete() -> bool:
    """Whether the last step of the set-up was done: the route to the Services."""
    command = ["ip", "route", "show", SERVICE_CIDR, "dev", HOST_LINK]
    return bool(subprocess.run(command, capture_output=True, check=False).stdout.strip())
