"""Reading the apiserver's audit log: who did what, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AuditEvent:
    """One request; names are empty and `code` is 0 where the log has none.

    `object` is what the request left behind, for the kinds of which the log keeps it (`controlplane.RECORDED`).
    """

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    user_agent: str
    uri: str
    time: str
    object: dict[str, Any] = field(default_factory=dict, compare=False)


def parse_event(raw: dict[str, Any]) -> AuditEvent:
    """The event of one decoded line."""
    target = raw.get("objectRef", {})
    return AuditEvent(
        user=raw.get("user", {}).get("username", ""),
        verb=raw.get("verb", ""),
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=raw.get("responseStatus", {}).get("code", 0),
        user_agent=raw.get("userAgent", ""),
        uri=raw.get("requestURI", ""),
        time=raw.get("requestReceivedTimestamp", ""),
        object=raw.get("responseObject", {}),
    )


WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class AuditLog:
    """The audit log at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        """The present end of the log, for `events(since=…)`."""
        return self.path.stat().st_size if self.path.exists() else 0

    def events(
        self,
        *,
        user: str | None = None,
        verbs: Collection[str] | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        since: int = 0,
    ) -> list[AuditEvent]:
        """The requests that match everything given, each once, oldest first.

        A watch is listed from its start on. `since` is a value of `mark()`.
        """
        found: dict[str, AuditEvent] = {}
        for line in self._lines(since):
            raw = json.loads(line)
            event = parse_event(raw)
            matches = (
                (user is None or event.user == user)
                and (verbs is None or event.verb in verbs)
                and (resource is None or event.resource == resource)
                and (namespace is None or event.namespace == namespace)
            )
            if matches:
                found[raw["auditID"]] = event  # the last stage of a request knows the most
        return list(found.values())

    def writes(self, *, user: str | None = None, since: int = 0) -> list[AuditEvent]:
        """The requests that change something."""
        return self.events(user=user, verbs=WRITE_VERBS, since=since)

    def _lines(self, since: int) -> list[bytes]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            # A mark may lie inside of a line that was half written then: it belongs to what came before the mark.
            file.seek(max(since - 1, 0))
            if since:
                file.readline()
            # The last line may be half written: only whole ones count.
            return [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
