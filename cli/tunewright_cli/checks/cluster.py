"""The cluster itself: does it answer, is it new enough, may we look."""

import re

from tunewright_cli.checks.finding import Finding, Level, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot

# ValidatingAdmissionPolicy, which guards approvals, and the sleep action, which drains servers.
OLDEST = (1, 30)
_SKEW_SECONDS = 60


def reachable(snapshot: Snapshot) -> Finding | None:
    """No kubeconfig, no network, no trust, no login."""
    if not snapshot.unreachable:
        return None
    sentence, _, fix = snapshot.unreachable.rpartition(": ")
    return Finding("Cluster", Level.BROKEN, sentence or snapshot.unreachable, fix)


def kubernetes_version(snapshot: Snapshot) -> Finding:
    """Older than what the chart needs."""
    if snapshot.version.value is None:
        return unknown("Kubernetes", "the version", snapshot.version)
    told = snapshot.version.value
    number = tuple(int(re.sub(r"\D", "", told[part]) or 0) for part in ("major", "minor"))
    if number < OLDEST:
        sentence = f"Kubernetes {told['gitVersion']} has no ValidatingAdmissionPolicy, which guards approvals"
        return broken("Kubernetes", sentence, f"upgrade the cluster to {OLDEST[0]}.{OLDEST[1]} or newer")
    return ok("Kubernetes", f"{told['gitVersion']} answers at {snapshot.server}")


def clock(snapshot: Snapshot) -> Finding | None:
    """A clock that is wrong makes certificates invalid, tokens expire and ages lie."""
    if snapshot.server_time is None:
        return None
    skew = (snapshot.now - snapshot.server_time).total_seconds()
    if abs(skew) <= _SKEW_SECONDS:
        return None
    sentence = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the apiserver's"
    return warning("Clock", sentence, "turn on time synchronisation (NTP) here and on the nodes")


def permission(snapshot: Snapshot) -> Finding | None:
    """The user may not read our kinds."""
    lacking = [plural for plural, seen in snapshot.may_read.items() if seen.value is False]
    if not lacking:
        return None
    sentence = f"you may not list {', '.join(lacking)} in namespace {snapshot.namespace}"
    command = f"kubectl -n {snapshot.namespace} create rolebinding NAME --clusterrole=tunewright-view --user=YOU"
    return broken("Permission", sentence, f"an administrator runs: {command}")
