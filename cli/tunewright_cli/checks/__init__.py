"""What can be broken in an installation: one small function per way, over a snapshot of the cluster. Pure.

A check returns a Finding, or None where it does not apply (no service uses Istio, so nothing is said about it).
"""

from collections.abc import Callable

from tunewright_cli.checks import approval, cluster, crds, namespaces, nodes, operator, prometheus, storage, traffic
from tunewright_cli.checks.finding import Finding, Level
from tunewright_cli.checks.snapshot import Snapshot

Check = Callable[[Snapshot], Finding | None]

# In the order in which a person would look: what comes first explains what comes later.
CHECKS: tuple[Check, ...] = (
    cluster.reachable,
    cluster.kubernetes_version,
    cluster.clock,
    cluster.permission,
    crds.installed,
    crds.current,
    operator.deployed,
    operator.available,
    operator.role,
    operator.images_pinned,
    operator.sees_objects,
    approval.policy,
    approval.binding,
    approval.somebody_may,
    traffic.istio_crds,
    traffic.istiod,
    traffic.gateway_api,
    namespaces.sidecars_admitted,
    prometheus.configured,
    prometheus.answers,
    storage.default_class,
    storage.claims,
    nodes.gpus,
    namespaces.pod_security,
)


def run_checks(snapshot: Snapshot) -> list[Finding]:
    """The findings of all checks that apply. Without a cluster there is nothing more to say."""
    if snapshot.unreachable:
        found = cluster.reachable(snapshot)
        return [found] if found else []
    return [finding for check in CHECKS if (finding := check(snapshot))]


__all__ = ["CHECKS", "Finding", "Level", "Snapshot", "run_checks"]
