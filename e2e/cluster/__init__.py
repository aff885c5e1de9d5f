"""A real, throw-away Kubernetes built from Go modules and Debian packages, without Docker.

Two tiers share the same code. The *apiserver tier* is etcd and kube-apiserver on free ports, for tests that need a
real API but no containers (`apiserver.py`). The *node tier* adds a kubelet with containerd, Service routing, DNS and
volumes in a network namespace of its own (`local.py`); `python -m e2e.cluster --help` drives it. Either can have a
mesh: Istio's control plane, an Envoy as its ingress gateway, and Prometheus (`mesh/`).
"""
