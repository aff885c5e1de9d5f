"""Command lines and configuration of containerd and the kubelet. Pure; `local.py` runs it.

Both work below the run directory and a cgroup of their own (`/tunewright`), never with the machine's containerd. The
node offers all CPUs and all memory of the machine: the control plane beside it reserves nothing, so pods should request
what they need on average, not at most. With two cores that is 2 CPUs to share out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.cluster.build import binary
from e2e.cluster.network import CLUSTER_DOMAIN, DNS_IP, NODE_IP
from e2e.cluster.packages import CNI_PLUGINS
from e2e.cluster.process import Service

NODE_NAME = "tunewright-node"
PAUSE_IMAGE = "tunewright.io/pause:1"
PROBE_IMAGE = "tunewright.io/probe:1"
CGROUP = "tunewright"


def containerd_config(run: Path, images: Path) -> str:
    """containerd's configuration (version 2, as containerd 1.6 and 1.7 read it)."""
    quoted = {
        name: json.dumps(str(path))
        for name, path in {
            "root": images,
            "state": run / "containerd",
            "socket": run / "containerd.sock",
            "opt": run / "opt",
            "cni_bin": CNI_PLUGINS,
            "cni_conf": run / "cni",
            "runc": run / "runc",
        }.items()
    }
    # restrict_oom_score_adj: in a machine that may not lower oom_score_adj every sandbox would die otherwise.
    return f"""version = 2
root = {quoted["root"]}
state = {quoted["state"]}

[grpc]
  address = {quoted["socket"]}

[plugins."io.containerd.internal.v1.opt"]
  path = {quoted["opt"]}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  max_concurrent_downloads = 1

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {quoted["cni_bin"]}
    conf_dir = {quoted["cni_conf"]}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = {quoted["runc"]}
        SystemdCgroup = false
"""


def containerd(config: Path) -> Service:
    return Service("containerd", ("containerd", f"--config={config}", "--log-level=warn"))


def kubelet_config(run: Path, ca: Path, serving: tuple[Path, Path]) -> dict[str, Any]:
    """The kubelet's configuration; every directory that it would use by default is moved below `run`."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzBindAddress": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving[0]),
        "tlsPrivateKeyFile": str(serving[1]),
        "containerRuntimeEndpoint": f"unix://{run / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [DNS_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(run / "resolv.conf"),
        "podLogsDir": str(run / "pod-logs"),
        "volumePluginDir": str(run / "volume-plugins"),
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # Images are loaded by hand: the kubelet must never throw them away.
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "maxPods": 200,
        "nodeStatusUpdateFrequency": "5s",
        "registryPullQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }


def kubelet(run: Path, config: Path, kubeconfig: Path) -> Service:
    argv = (
        str(binary("kubelet")),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={run / 'kubelet'}",
        f"--cert-dir={run / 'kubelet' / 'pki'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
    )
    return Service("kubelet", argv)


def kube_proxy(config: Path) -> Service:
    return Service("kube-proxy", (str(binary("kube-proxy")), f"--config={config}"))


def coredns(corefile: Path) -> Service:
    return Service("coredns", (str(binary("coredns")), f"-conf={corefile}"))
