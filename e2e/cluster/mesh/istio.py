"""Istio's control plane (istiod) and the objects of its ingress gateway. Pure; `running.py` runs it.

istiod runs beside the cluster without what it does for sidecars: no injection, no certificates, no webhooks. What it
makes of VirtualServices, DestinationRules, Gateways and HTTPRoutes is what it makes anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.build import binary
from e2e.cluster.process import Service

NAMESPACE = "istio-system"
GATEWAY = "gateway"
GATEWAY_SERVICE = "istio-ingressgateway"
GATEWAY_LABELS = {"istio": "ingressgateway"}
DISCOVERY_PORT = 15010
HTTP_PORT = 15014

# Where the API keeps the kinds in the CRD files; that of the Gateway API brings a policy against downgrades.
DEFINITIONS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}

ENVIRONMENT = {
    # Filters that only the Envoy of Istio's own image has.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_TELEMETRY_LABEL": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    # No certificates, no webhooks, no Deployments of gateways, and nobody to elect a leader from.
    "ENABLE_CA_SERVER": "false",
    "PILOT_CERT_PROVIDER": "none",
    "INJECT_ENABLED": "false",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
    "ENABLE_LEADER_ELECTION": "false",
    "POD_NAME": "istiod",
    "POD_NAMESPACE": NAMESPACE,
}


def mesh_config() -> dict[str, Any]:
    """The mesh's configuration: plain HTTP between gateway and pods, since there are no sidecars."""
    return {"rootNamespace": NAMESPACE, "enableAutoMtls": False, "ingressControllerMode": "OFF"}


def istiod(address: str, kubeconfig: Path, config: Path) -> Service:
    """istiod at `address`: discovery without TLS on DISCOVERY_PORT; readiness, metrics and debugging on HTTP_PORT."""
    argv = (
        str(binary("pilot-discovery")),
        "discovery",
        f"--kubeconfig={kubeconfig}",
        f"--meshConfig={config}",
        "--networksConfig=/dev/null",
        f"--grpcAddr={address}:{DISCOVERY_PORT}",
        f"--httpAddr={address}:{HTTP_PORT}",
        # Empty: not served, or served on httpAddr. Port 0: any that is free.
        "--monitoringAddr=",
        "--httpsAddr=",
        "--secureGRPCAddr=",
        "--ctrlz_port=0",
        "--shutdownDuration=1s",
    )
    return Service("istiod", argv, ENVIRONMENT)


def definitions(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in one of the CRD files: (path, object)."""
    for manifest in yaml.load_all(text, yaml.CSafeLoader):
        yield f"{DEFINITIONS[manifest['kind']]}/{manifest['metadata']['name']}", manifest


def objects(address: str, port: int) -> list[tuple[str, dict[str, Any]]]:
    """The gateway that listens on `address` and `port`, for Istio's API and for the Gateway API: (path, object).

    Its Service has the name and the labels of Istio's charts. No pod has these labels, so its only endpoint is ours.
    """
    meta = {"namespace": NAMESPACE}
    service = {"name": GATEWAY_SERVICE, **meta, "labels": GATEWAY_LABELS}
    slice_labels = {
        "kubernetes.io/service-name": GATEWAY_SERVICE,
        # The controllers leave slices alone that name another manager.
        "endpointslice.kubernetes.io/managed-by": "tunewright-e2e",
    }
    host = f"{GATEWAY_SERVICE}.{NAMESPACE}.svc.cluster.local"
    return [
        (
            f"/api/v1/namespaces/{NAMESPACE}/services/{GATEWAY_SERVICE}",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": service,
                "spec": {
                    "selector": GATEWAY_LABELS,
                    "ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}],
                },
            },
        ),
        (
            f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{GATEWAY_SERVICE}",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": GATEWAY_SERVICE, **meta, "labels": slice_labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            },
        ),
        (
            f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/gateways/{GATEWAY}",
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "Gateway",
                "metadata": {"name": GATEWAY, **meta},
                "spec": {
                    "selector": GATEWAY_LABELS,
                    "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
                },
            },
        ),
        (
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses/istio",
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GatewayClass",
                "metadata": {"name": "istio"},
                "spec": {"controllerName": "istio.io/gateway-controller"},
            },
        ),
        (
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/{GATEWAY}",
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": GATEWAY, **meta},
                "spec": {
                    "gatewayClassName": "istio",
                    # The address of a Service links it to a gateway that is there; otherwise Istio would deploy one.
                    "addresses": [{"type": "Hostname", "value": host}],
                    "listeners": [
                        {
                            "name": "http",
                            "port": 80,
                            "protocol": "HTTP",
                            "allowedRoutes": {"namespaces": {"from": "All"}},
                        }
                    ],
                },
            },
        ),
    ]


def analyze_command(config: Path, files: Sequence[Path], live: tuple[Path, str] | None = None) -> list[str]:
    """`istioctl analyze` of `files` alone, or with `live` (kubeconfig, namespace) on top of what is in the cluster."""
    scope = ["--use-kube=false", "--all-namespaces"]
    if live:
        scope = [f"--kubeconfig={live[0]}", f"--namespace={live[1]}"]
    options = ["--output=json", f"--meshConfigFile={config}"]
    return [str(binary("istioctl")), "analyze", *scope, *options, *map(str, files)]


def findings(output: str, threshold: str = "Warning") -> list[dict[str, Any]]:
    """The findings in the output of `istioctl analyze`, at least as grave as `threshold` (Info, Warning or Error)."""
    levels = ["Info", "Warning", "Error"]
    found = json.loads(output or "null") or []
    return [one for one in found if levels.index(one["level"]) >= levels.index(threshold)]
