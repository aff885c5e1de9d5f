"""Prometheus for the pods of the cluster. Pure; `running.py` runs it.

It scrapes every running pod with the annotation `prometheus.io/scrape: "true"` (and `prometheus.io/port`,
`prometheus.io/path`), Envoy, and whatever a file in the folder of targets names; rules come from a folder, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2e.cluster.build import binary
from e2e.cluster.process import Service

NAMESPACE = "monitoring"
SERVICE = "prometheus"
PORT = 9090
_POD = "__meta_kubernetes_pod"
_ANNOTATION = f"{_POD}_annotation_prometheus_io"


def configuration(kubeconfig: Path, envoy: str, *, rules: Path, targets: Path, interval: str) -> dict[str, Any]:
    """Prometheus' configuration; `envoy` is HOST:PORT of its admin server, `interval` the time between two scrapes."""
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": [
            {
                "job_name": "pods",
                # The operator tells of objects in other namespaces than its pod's.
                "honor_labels": True,
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
                "relabel_configs": pod_relabeling(),
            },
            {
                "job_name": "envoy",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": [envoy]}],
            },
            {
                "job_name": "targets",
                "file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}],
            },
        ],
    }


def pod_relabeling() -> list[dict[str, Any]]:
    """From a pod's annotations to where it is scraped, and from its labels to the samples' labels."""
    return [
        {"source_labels": [f"{_ANNOTATION}_scrape"], "regex": "true", "action": "keep"},
        {"source_labels": [f"{_POD}_phase"], "regex": "Running", "action": "keep"},
        {"source_labels": [f"{_ANNOTATION}_path"], "regex": "(.+)", "target_label": "__metrics_path__"},
        {
            "source_labels": [f"{_POD}_ip", f"{_ANNOTATION}_port"],
            "regex": r"(.+);(\d+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
        {"regex": f"{_POD}_label_(.+)", "action": "labelmap"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_POD}_name"], "target_label": "pod"},
    ]


def target_file(job: str, address: str, path: str, labels: dict[str, str]) -> str:
    """The text of a file in the folder of targets."""
    return json.dumps([{"targets": [address], "labels": {"job": job, "__metrics_path__": path, **labels}}])


def check_rules_command(files: Sequence[Path]) -> list[str]:
    """The command that tells what is wrong with rule files."""
    return [str(binary("promtool")), "check", "rules", *map(str, files)]


def prometheus(address: str, config: Path, data: Path) -> Service:
    """Prometheus at `address`; it reads its configuration and rules anew when asked over HTTP."""
    argv = (
        str(binary("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}:{PORT}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    )
    return Service("prometheus", argv)


def objects(address: str) -> list[tuple[str, dict[str, Any]]]:
    """The Service by which pods find it, with `address` for an endpoint: (path, object)."""
    meta = {"name": SERVICE, "namespace": NAMESPACE}
    port = {"name": "http", "port": PORT, "protocol": "TCP"}
    return [
        (
            f"/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}",
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [port]}},
        ),
        (
            f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{SERVICE}",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": SERVICE}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [port],
            },
        ),
    ]


def result(status: int, body: str) -> list[dict[str, Any]]:
    """The samples in the answer of the query API; raises ValueError with Prometheus' words when it refused."""
    answer = json.loads(body)
    if status != 200:
        raise ValueError(answer.get("error", body))
    data = answer["data"]
    if data["resultType"] in ("scalar", "string"):
        return [{"metric": {}, "value": data["result"]}]
    return list(data["result"])
