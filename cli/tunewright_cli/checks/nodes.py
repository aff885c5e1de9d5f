"""Nodes: GPUs that jobs and services ask for."""

from collections.abc import Iterator

from tunewright_cli.chain.states import condition_status
from tunewright_cli.checks.finding import Finding, broken, ok, unknown
from tunewright_cli.checks.snapshot import Snapshot, full_name

GPU = "nvidia.com/gpu"


def gpus(snapshot: Snapshot) -> Finding | None:
    """Something asks for more GPUs per node than any node has."""
    wanted = max(_wanted(snapshot), default=None)
    if wanted is None:
        return None
    if snapshot.nodes.error:
        return unknown("GPUs", "nodes", snapshot.nodes)
    count, who = wanted
    largest = max((_allocatable(node) for node in snapshot.nodes.items), default=0)
    if largest == 0:
        fix = "add GPU nodes and NVIDIA's device plugin (GPU operator), which makes them known to Kubernetes"
        return broken("GPUs", f"{who} asks for {count} GPUs per node, and no node offers {GPU}", fix)
    if count > largest:
        fix = "ask for fewer GPUs per node and more nodes, or add larger ones"
        return broken("GPUs", f"{who} asks for {count} GPUs per node, and the largest node has {largest}", fix)
    return ok("GPUs", f"up to {count} per node are asked for, nodes have up to {largest}")


def _wanted(snapshot: Snapshot) -> Iterator[tuple[int, str]]:
    """(GPUs per node, who) of everything that runs or waits."""
    for job in snapshot.jobs.items:
        count = _count((job["spec"].get("resourcesPerNode") or {}).get(GPU))
        if count and "True" not in {condition_status(job, "Complete"), condition_status(job, "Failed")}:
            yield count, f"job {full_name(job)}"
    for service in snapshot.services.items:
        count = _count((service["spec"].get("resources") or {}).get(GPU))
        if count and service["spec"].get("replicas") != 0:
            yield count, f"service {full_name(service)}"


def _allocatable(node: dict[str, object]) -> int:
    status = node.get("status")
    return _count(status.get("allocatable", {}).get(GPU)) if isinstance(status, dict) else 0


def _count(quantity: object) -> int:
    return int(str(quantity)) if str(quantity or "").isdigit() else 0
