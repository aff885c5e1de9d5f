"""Which object a name on the command line means."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tunewright_cli.chain.links import Links
from tunewright_cli.chain.model import Focus, Object
from tunewright_cli.exits import CliError
from tunewright_cli.kinds import Kind, parse_reference


@dataclass(frozen=True)
class Objects:
    """What a namespace holds, by name."""

    namespace: str
    jobs: dict[str, Object] = field(default_factory=dict)
    versions: dict[str, Object] = field(default_factory=dict)
    services: dict[str, Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()

    @classmethod
    def of(
        cls,
        namespace: str,
        jobs: Iterable[Object],
        versions: Iterable[Object],
        services: Iterable[Object],
        pods: Iterable[Object] = (),
    ) -> "Objects":
        """Objects as the API lists them."""
        return cls(namespace, _by_name(jobs), _by_name(versions), _by_name(services), tuple(pods))

    def by_kind(self, kind: Kind) -> dict[str, Object]:
        """The objects of one kind."""
        return {Kind.JOB: self.jobs, Kind.VERSION: self.versions, Kind.SERVICE: self.services}[kind]


class AmbiguousError(CliError):
    """Several objects have the name, and they do not belong together."""


def find_focus(text: str, objects: Objects) -> Focus:
    """The object that `text` means.

    A job and the service of its model often have one name: then the service stands for both. Raises
    CliError when there is none, AmbiguousError when there are several.
    """
    kind, name = parse_reference(text)
    hits = [
        one for one in (Kind.SERVICE, Kind.JOB, Kind.VERSION) if name in objects.by_kind(one) and kind in {None, one}
    ]
    if not hits:
        what = kind.title if kind else "FineTuneJob, ModelVersion or InferenceService"
        known = ", ".join(_suggestions(name, objects))
        advice = f"it has {known}" if known else "it has none; give another one with -n"
        raise CliError(f"there is no {what} {name} in namespace {objects.namespace}: {advice}")
    if len(hits) > 1 and not _together(hits, name, objects):
        ways = " or ".join(f"{one.short}/{name}" for one in hits)
        raise AmbiguousError(f"several objects are called {name}: write {ways}")
    return {"kind": hits[0].title, "name": name}


def _together(hits: list[Kind], name: str, objects: Objects) -> bool:
    """Whether all of them are about one model: then the first one's chain is where each of them belongs, or was."""
    links = Links(objects.jobs, objects.versions, objects.services)
    return bool(set.intersection(*(_models(hit, name, objects, links) for hit in hits)))


def _models(kind: Kind, name: str, objects: Objects, links: Links) -> set[str]:
    """Names of the models that an object is about."""
    if kind is Kind.SERVICE:
        return links.models_of_service(name)
    spec = objects.by_kind(kind)[name]["spec"]
    return {str(spec["output"]["modelName"] if kind is Kind.JOB else spec["modelName"])}


def _suggestions(name: str, objects: Objects) -> Iterator[str]:
    """Names to try: those that are alike, else the first few."""
    from difflib import get_close_matches

    known = [(one, kind) for kind in Kind for one in sorted(objects.by_kind(kind))]
    alike = get_close_matches(name, [one for one, _ in known], n=5)
    shown = [(one, kind) for one, kind in known if one in alike] or known
    yield from (f"{kind.short}/{one}" for one, kind in shown[:5])


def _by_name(items: Iterable[Object]) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in items}
