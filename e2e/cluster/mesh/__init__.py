"""Istio, its ingress gateway and Prometheus, as an option of both tiers.

with pod_addresses() as addresses, running_mesh(plane, directory, next(addresses)) as mesh:
    mesh.gateway_url, mesh.query("up"), mesh.analyze(Path("virtual-service.yaml"))
"""

from e2e.cluster.mesh.addresses import pod_addresses
from e2e.cluster.mesh.running import Mesh, running_mesh

__all__ = ["Mesh", "pod_addresses", "running_mesh"]
