"""The CustomResourceDefinitions: there, established, and as new as this command."""

from collections.abc import Iterator

from tunewright_api.names import GROUP
from tunewright_cli.chain.model import Object
from tunewright_cli.checks.finding import Finding, broken, ok, unknown
from tunewright_cli.checks.snapshot import Snapshot, join_names

_UPGRADE = "upgrade the chart (helm upgrade), or: kubectl apply --server-side -f crds/"


def installed(snapshot: Snapshot) -> Finding | None:
    """A kind is missing, or the apiserver does not accept its definition."""
    missing = [f"{plural}.{GROUP}" for plural, seen in snapshot.crds.items() if seen.missing]
    if missing:
        return broken("CRDs", f"{join_names(missing)} not installed", "install the chart: helm install tunewright …")
    for plural, seen in snapshot.crds.items():
        if seen.value is None:
            return unknown("CRDs", f"{plural}.{GROUP}", seen)
        for condition in seen.value.get("status", {}).get("conditions") or ():
            if condition["type"] in {"Established", "NamesAccepted"} and condition["status"] == "False":
                fix = "remove the other definition that has these names, then install the chart again"
                return broken("CRDs", f"{plural}.{GROUP} is not accepted: {condition.get('message', '')}", fix)
    return None


def current(snapshot: Snapshot) -> Finding | None:
    """A definition in the cluster lacks a field that this version knows: the apiserver would drop it in silence."""
    if any(seen.value is None for seen in snapshot.crds.values()):
        return None
    lacking = []
    for plural, expected in snapshot.expected_crds.items():
        there = set(fields(snapshot.crds[plural].value))
        lacking += [f"{plural}.{path}" for path in fields(expected) if path not in there]
    if lacking:
        return broken("CRDs", f"the CRDs are older than this command: they lack {join_names(lacking)}", _UPGRADE)
    return ok("CRDs", f"{', '.join(snapshot.crds)} have every field")


def fields(crd: Object) -> list[str]:
    """Paths of all fields of the newest version's schema."""
    schema = crd["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
    return list(_walk(schema, ""))


def _walk(schema: Object, path: str) -> Iterator[str]:
    for name, child in (schema.get("properties") or {}).items():
        where = f"{path}.{name}".lstrip(".")
        yield where
        yield from _walk(child, where)
    if items := schema.get("items"):
        yield from _walk(items, f"{path}[]")
