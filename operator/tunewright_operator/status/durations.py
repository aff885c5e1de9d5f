"""What has just ended, from the difference of two stored statuses."""

from collections.abc import Mapping
from typing import Any

from tunewright_operator.observe.times import parse_time


def finished_stages(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """(stage, seconds) of every stage that is finished now and was not before."""
    before = {stage["stage"] for stage in old.get("stages") or () if stage.get("finished")}
    return tuple(
        (stage["stage"], (parse_time(stage["finished"]) - parse_time(stage["started"])).total_seconds())
        for stage in new.get("stages") or ()
        if stage.get("finished") and stage["stage"] not in before
    )


def new_restarts(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Causes of the attempts that were lost in between."""
    before = {restart["attempt"] for restart in old.get("restarts") or ()}
    return tuple(r["cause"] for r in new.get("restarts") or () if r["attempt"] not in before)
