"""One word for the state of any object, for the gauge `tunewright_objects`."""

from collections.abc import Mapping
from typing import Any


def summarize_state(status: Mapping[str, Any]) -> str:
    """The job's stage; for the other kinds Failed, Progressing, Ready or NotReady, as kstatus would order them."""
    if stage := status.get("stage"):
        return str(stage)
    true = {condition["type"] for condition in status.get("conditions") or () if condition["status"] == "True"}
    if "Reconciling" in true:
        return "Progressing"
    if "Stalled" in true:
        return "Failed"
    return "Ready" if "Ready" in true else "NotReady"
