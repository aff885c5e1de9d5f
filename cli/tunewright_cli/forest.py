"""Objects -> the list of everything: each job with its version below it, each version with the services it answers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunewright_cli.chain.find import Objects
from tunewright_cli.chain.links import Links
from tunewright_cli.chain.model import Object, State
from tunewright_cli.chain.states import job_state, service_state, version_state
from tunewright_cli.kinds import Kind


@dataclass(frozen=True)
class Row:
    """One object; `depth` 1 and 2 hang below the row before."""

    depth: int
    kind: Kind
    namespace: str
    name: str
    state: State
    detail: str
    message: str
    created: str

    def to_dict(self) -> dict[str, str]:
        """As `get -o json` prints it."""
        return {
            "kind": self.kind.title,
            "namespace": self.namespace,
            "name": self.name,
            "state": self.state.value,
            "detail": self.detail,
            "message": self.message,
            "created": self.created,
        }


def build_forest(jobs: Iterable[Object], versions: Iterable[Object], services: Iterable[Object]) -> list[Row]:
    """The rows of all objects, namespace by namespace."""
    spaces: dict[str, tuple[list[Object], list[Object], list[Object]]] = {}
    for index, items in enumerate((jobs, versions, services)):
        for item in items:
            spaces.setdefault(item["metadata"]["namespace"], ([], [], []))[index].append(item)
    return [row for name in sorted(spaces) for row in _rows(Objects.of(name, *spaces[name]))]


def _rows(objects: Objects) -> Iterator[Row]:
    homes, makers = _homes(objects), _makers(objects)
    below: dict[str, list[str]] = {}
    for version, job in makers.items():
        below.setdefault(job, []).append(version)
    beside: dict[str, list[str]] = {}
    for service, version in homes.items():
        beside.setdefault(version, []).append(service)

    def version_rows(name: str, depth: int) -> Iterator[Row]:
        yield _version(objects.versions[name], depth)
        for service in sorted(beside.get(name, ())):
            yield _service(objects.services[service], depth + 1)

    for name in sorted(objects.jobs):
        yield _job(objects.jobs[name])
        for version in sorted(below.get(name, ())):
            yield from version_rows(version, 1)
    for name in sorted(objects.versions.keys() - makers.keys()):
        yield from version_rows(name, 0)
    for name in sorted(objects.services.keys() - homes.keys()):
        yield _service(objects.services[name], 0)


def _makers(objects: Objects) -> dict[str, str]:
    """version -> the job that made it, where both are there."""
    found = {}
    for name, version in objects.versions.items():
        job = ((version["spec"].get("lineage") or {}).get("jobRef") or {}).get("name")
        if job in objects.jobs:
            found[name] = job
    return found


def _homes(objects: Objects) -> dict[str, str]:
    """service -> the version below which it is shown: the one that answers, else the one it waits for."""
    links, found = Links(objects.jobs, objects.versions, objects.services), {}
    for name, service in objects.services.items():
        stable = (service.get("status", {}).get("stable") or {}).get("version")
        version = stable or links.wanted_version(service)
        if version in objects.versions:
            found[name] = version
    return found


def _job(job: Object) -> Row:
    status = job.get("status", {})
    summary = (status.get("progress") or {}).get("summary") or ""
    detail = " · ".join(part for part in (status.get("stage") or "Pending", summary) if part)
    return _row(0, Kind.JOB, job, job_state(job), detail)


def _version(version: Object, depth: int) -> Row:
    approval = version["spec"].get("approval") or {}
    state = version_state(version)
    decided = f"{str(approval.get('decision', '')).lower()} by {approval.get('approvedBy')}" if approval else ""
    words = decided or ("waits for approval" if state is State.WAITING else "")
    aliases = ", ".join(f"@{alias}" for alias in version["spec"].get("aliases") or ())
    return _row(depth, Kind.VERSION, version, state, " · ".join(part for part in (words, aliases) if part))


def _service(service: Object, depth: int) -> Row:
    status = service.get("status", {})
    parts = [
        f"{one['version']} {one.get('weight', 100)}%" for role in ("stable", "candidate") if (one := status.get(role))
    ]
    if candidate := status.get("candidate"):
        parts.append("paused" if candidate.get("paused") else candidate.get("phase", ""))
    if rejected := status.get("rejected"):
        parts.append(f"{rejected['version']} rejected: {rejected['reason']}")
    return _row(depth, Kind.SERVICE, service, service_state(service), " · ".join(parts))


def _row(depth: int, kind: Kind, item: Object, state: State, detail: str) -> Row:
    meta = item["metadata"]
    message = item.get("status", {}).get("message") or ""
    return Row(
        depth, kind, meta["namespace"], meta["name"], state, detail, message, meta.get("creationTimestamp") or ""
    )
