"""Objects -> chain: what belongs to the object that was asked for."""

from collections.abc import Iterable, Sequence

from tunewright_api.names import LABEL_REVISION
from tunewright_cli.chain.find import Objects
from tunewright_cli.chain.lineage import describe_lineage
from tunewright_cli.chain.links import Links
from tunewright_cli.chain.model import Chain, Focus, Object, State
from tunewright_cli.chain.pods import owner
from tunewright_cli.chain.service import describe_service
from tunewright_cli.kinds import Kind


def build_chain(focus: Focus, objects: Objects) -> Chain:
    """The chain of an object that is there."""
    links = Links(objects.jobs, objects.versions, objects.services)
    versions, services = _members(focus, links)
    lineages = [describe_lineage(name, objects, links) for name in versions]
    described = [
        describe_service(
            objects.services[name],
            links.wanted_version(objects.services[name]),
            _pods_of(Kind.SERVICE, name, objects.pods),
        )
        for name in services
    ]
    chain: Chain = {
        "namespace": objects.namespace,
        "focus": focus,
        "state": State.MISSING,
        "lineages": lineages,
        "services": described,
    }
    chain["state"] = _state(chain)
    return chain


def _members(focus: Focus, links: Links) -> tuple[Sequence[str], Sequence[str]]:
    """Names of the versions and of the services of the chain."""
    name = focus["name"]
    if focus["kind"] == Kind.SERVICE.title:
        return links.versions_of_service(name), [name]
    versions = links.versions_of_job(name) if focus["kind"] == Kind.JOB.title else [name]
    services = [service for version in versions for service in links.services_of_version(version)]
    return versions, services


def _state(chain: Chain) -> State:
    """State of the object that was asked for."""
    focus = chain["focus"]
    found: list[State] = [one["state"] for one in chain["services"] if focus["kind"] == Kind.SERVICE.title]
    for lineage in chain["lineages"]:
        if focus["kind"] == Kind.JOB.title and lineage["job"]:
            found.append(lineage["job"]["state"])
        if focus["kind"] == Kind.VERSION.title and lineage["version"]:
            found.append(lineage["version"]["state"])
    return found[0] if found else State.MISSING


def _pods_of(kind: Kind, name: str, pods: Iterable[Object]) -> dict[str, list[Object]]:
    """Pods of one object by revision."""
    found: dict[str, list[Object]] = {}
    for pod in pods:
        if owner(pod) == (kind.title, name):
            found.setdefault(pod["metadata"]["labels"].get(LABEL_REVISION, ""), []).append(pod)
    return found
