"""What holds for the weights of every rollout, read from the audit log: each write that the route object ever saw.

A history is what users met. It begins with the first route, and each entry is one write: how much of the traffic each
revision got from then on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from e2e.cluster.audit import AuditEvent, AuditLog, parse_event
from tunewright_api.names import HEADER_REVISION

Object = dict[str, Any]

ROUTES = ("virtualservices", "httproutes")


@dataclass(frozen=True)
class Weights:
    """Percent of the traffic by revision, since `time` (seconds of the epoch)."""

    time: float
    shares: dict[str, int]

    @property
    def whole(self) -> str | None:
        """The revision that gets everything, if one does."""
        return next((revision for revision, share in self.shares.items() if share == 100), None)


class Record:
    """Every version of the routes and statuses, read from the audit log as it grows; many threads may ask at once."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._read = 0
        self._events: dict[tuple[str, str], list[AuditEvent]] = {}
        self._lock = threading.Lock()

    def weights(self, namespace: str, route: str, service: str) -> list[Weights]:
        """Every write of a route of the service that changed the weights, oldest first."""
        history: list[Weights] = []
        for event in self._accepted(namespace, route):
            if event.resource in ROUTES:
                shares = shares_of(event.object, service)
                if not history or history[-1].shares != shares:
                    history.append(Weights(seconds_of(event.time), shares))
        return history

    def statuses(self, namespace: str, service: str) -> list[tuple[float, Object]]:
        """(time, status) of every write of the service's status, oldest first."""
        return [
            (seconds_of(event.time), event.object.get("status") or {})
            for event in self._accepted(namespace, service)
            if event.resource == "inferenceservices" and event.subresource == "status"
        ]

    def _accepted(self, namespace: str, name: str) -> list[AuditEvent]:
        with self._lock:
            self._catch_up()
            return sorted(self._events.get((namespace, name), ()), key=lambda event: event.time)

    def _catch_up(self) -> None:
        if not self._log.path.exists():
            return
        with self._log.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # half written
                    break
                self._read += len(line)
                if b'"responseObject"' in line:
                    self._keep(parse_event(json.loads(line)))

    def _keep(self, event: AuditEvent) -> None:
        if 200 <= event.code < 300:
            key = event.namespace, event.object["metadata"]["name"]
            self._events.setdefault(key, []).append(event)


def shares_of(route: Object, service: str) -> dict[str, int]:
    """Percent by revision of a VirtualService or an HTTPRoute; revisions with nothing are left out."""
    targets = _istio(route["spec"]) if route["kind"] == "VirtualService" else _gateway_api(route["spec"], service)
    return {revision: weight for revision, weight in targets if weight}


def _istio(spec: Object) -> Iterator[tuple[str, int]]:
    (everybody,) = [http for http in spec["http"] if not _by_name(http)]
    for target in everybody["route"]:
        yield target["destination"]["subset"], target.get("weight", 100)


def _gateway_api(spec: Object, service: str) -> Iterator[tuple[str, int]]:
    (everybody,) = [rule for rule in spec["rules"] if not _by_name(rule)]
    for backend in everybody["backendRefs"]:
        yield backend["name"].removeprefix(f"{service}-"), backend.get("weight", 1)


def _by_name(rule: Object) -> bool:
    """Whether this rule is for requests that name the revision which they want."""
    return HEADER_REVISION in str(rule.get("match") or rule.get("matches") or "")


def check_laws(history: Sequence[Weights], steps: Sequence[int]) -> None:
    """Weights add up to 100; a candidate climbs by one of `steps` at a time, or falls to 0, or gets all."""
    for weights in history:
        assert sum(weights.shares.values()) == 100, weights
        assert len(weights.shares) <= 2, weights
    for before, after in pairwise(history):
        for revision in after.shares.keys() | before.shares.keys():
            old, new = before.shares.get(revision, 0), after.shares.get(revision, 0)
            assert _lawful(old, new, steps), f"{revision} went from {old} to {new}: {before} -> {after}"


def _lawful(old: int, new: int, steps: Sequence[int]) -> bool:
    """Seen from the candidate, or from the stable revision, which has what the candidate leaves."""
    ladder = [0, *steps]
    following = dict(pairwise(ladder))
    return new in {0, 100, old} or following.get(old) == new or following.get(100 - old) == 100 - new


def check_decided_first(history: Sequence[Weights], statuses: Sequence[tuple[float, Object]]) -> None:
    """No weight is carried out that status had not announced before."""
    for weights in history[1:]:  # the first start decides nothing: there is but one revision
        announced = [_announced(status) for time, status in statuses if time <= weights.time]
        assert weights.shares in announced, f"{weights} was not in status before; it said {announced[-3:]}"


def _announced(status: Object) -> dict[str, int]:
    stable, candidate = status.get("stable") or {}, status.get("candidate") or {}
    weight = candidate.get("weight", 0)
    shares = {stable.get("revision", ""): 100 - weight, candidate.get("revision", ""): weight}
    return {revision: share for revision, share in shares.items() if revision and share}


def seconds_of(time: str) -> float:
    """Seconds of the epoch of a timestamp in RFC 3339."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
