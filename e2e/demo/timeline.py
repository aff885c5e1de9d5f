"""What happened to a service between two looks at it: its checks and decisions as lines. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

UNITS = {"ErrorRate": "%", "CompletionRate": "%", "TTFTP50": "ms", "TTFTP95": "ms", "TPOTP95": "ms"}


@dataclass(frozen=True, order=True)
class Entry:
    """One thing that happened. Of the same second, a check stands before the decision that it led to."""

    time: str  # RFC 3339
    order: int
    text: str

    @property
    def line(self) -> str:
        """The entry for people, with the time of day (UTC)."""
        return f"{self.time[11:19]}  {self.text}"


def entries(service: Object) -> set[Entry]:
    """Everything that the status of an InferenceService tells: the newest check, and the last ten decisions."""
    status = service.get("status") or {}
    decisions = {Entry(one["time"], 2, _decision(one)) for one in status.get("history") or ()}
    analysis = status.get("analysis")
    return decisions | ({Entry(analysis["time"], 1, _check(analysis))} if analysis else set())


class Timeline:
    """Follows a service; `see` returns what is new, oldest first."""

    def __init__(self) -> None:
        self._seen: set[Entry] = set()

    def see(self, service: Object) -> list[Entry]:
        """The entries that no earlier state had."""
        new = entries(service) - self._seen
        self._seen |= new
        return sorted(new)


def _decision(one: Object) -> str:
    times = f" x{one['count']}" if one.get("count", 1) > 1 else ""
    # What passed stands in the check above it.
    why = one["reason"] if one["reason"] == "Passed" else f"{one['reason']}: {one['message']}"
    return f"{one['decision'] + times:<12} {one['version']:<10} {one['weight']:>3} %  {why}"


def _check(analysis: Object) -> str:
    parts = [number(metric) for metric in analysis.get("metrics") or ()]
    if probes := analysis.get("probes"):
        parts.append(f"{probes['passed']} of {probes['total']} answers right")
    requests = analysis.get("requests")
    counted = "" if requests is None else f"{requests} requests in {analysis['windowSeconds']} s · "
    return f"  {analysis['verdict']:<10} {counted}{' · '.join(parts)}"


def number(metric: Object) -> str:
    """A metric's value against its limits, such as `TTFTP95 412 ms (at most 5000)`."""
    value = metric.get("candidate")
    said = "no data" if value is None else f"{value:.3g} {UNITS[metric['name']]}" if value < 100 else _large(metric)
    limits = metric.get("thresholdRange") or {}
    bounds = [f"{word} {limits[key]:g}" for key, word in (("min", "at least"), ("max", "at most")) if key in limits]
    return f"{metric['name']} {said} ({', '.join(bounds)})" if bounds else f"{metric['name']} {said}"


def _large(metric: Object) -> str:
    return f"{metric['candidate']:.0f} {UNITS[metric['name']]}"
