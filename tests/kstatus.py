"""What kubectl, Helm and Flux conclude from a status: kstatus' rules for custom resources, transcribed.

Source: sigs.k8s.io/cli-utils/pkg/kstatus/status, `checkGenericProperties`.
"""

from enum import StrEnum
from typing import Any


class KStatus(StrEnum):
    """The verdicts of kstatus."""

    TERMINATING = "Terminating"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"


def kstatus(obj: dict[str, Any]) -> KStatus:
    """The verdict on an object; the first rule that applies decides."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return KStatus.TERMINATING
    observed = status.get("observedGeneration")
    if isinstance(observed, int) and observed != metadata.get("generation"):
        return KStatus.IN_PROGRESS
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return KStatus.IN_PROGRESS
    if conditions.get("Stalled") == "True":
        return KStatus.FAILED
    if "Ready" in conditions and conditions["Ready"] != "True":
        return KStatus.IN_PROGRESS
    return KStatus.CURRENT
