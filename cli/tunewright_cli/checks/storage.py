"""Claims: what jobs and versions name must be there, bound, and shared where several pods write."""

from collections.abc import Iterator

from tunewright_cli.chain.links import carries
from tunewright_cli.chain.model import Object
from tunewright_cli.chain.states import condition_status
from tunewright_cli.checks.finding import Finding, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot, full_name, join_names

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_SCHEME = "pvc://"


def default_class(snapshot: Snapshot) -> Finding | None:
    """A claim without a class waits for ever where no class is the default."""
    if snapshot.storage_classes.error:
        return unknown("Storage", "storage classes", snapshot.storage_classes)
    classes = snapshot.storage_classes.items
    if any((one["metadata"].get("annotations") or {}).get(_DEFAULT) == "true" for one in classes):
        return None
    fix = f"kubectl annotate storageclass NAME {_DEFAULT}=true, or name a class in each claim"
    waiting = [
        full_name(one)
        for one in snapshot.claims.items
        if one.get("status", {}).get("phase") == "Pending" and one["spec"].get("storageClassName") is None
    ]
    if waiting:
        return broken("Storage", f"{join_names(waiting)} waits for a default StorageClass, and there is none", fix)
    return warning("Storage", "no StorageClass is the default: a claim has to name one", fix)


def claims(snapshot: Snapshot) -> Finding | None:
    """The claims that unfinished jobs and services use."""
    if snapshot.claims.error:
        return unknown("Claims", "claims", snapshot.claims)
    known = {full_name(one): one for one in snapshot.claims.items}
    uses = list(_uses(snapshot))
    for user, name, many in uses:
        claim = known.get(name)
        if claim is None:
            space, short = name.split("/")
            fix = f"create the PersistentVolumeClaim {short} in namespace {space}, or correct the URI"
            return broken("Claims", f"{user} names the claim {short}, which does not exist", fix)
        if claim.get("status", {}).get("phase") == "Lost":
            return broken("Claims", f"the volume of claim {name} is gone ({user} uses it)", "restore the volume")
        modes = claim["spec"].get("accessModes") or []
        if many and "ReadWriteMany" not in modes:
            sentence = f"{user} writes to claim {name} from {many} nodes, and the claim is only {', '.join(modes)}"
            return broken("Claims", sentence, "use a claim that is ReadWriteMany, or one node")
    if not uses:
        return None
    return ok("Claims", f"{len({name for _, name, _ in uses})} in use, all there")


def _uses(snapshot: Snapshot) -> Iterator[tuple[str, str, int]]:
    """(who, NAMESPACE/CLAIM, number of writing nodes if more than one)."""
    for job in snapshot.jobs.items:
        if "True" in {condition_status(job, "Complete"), condition_status(job, "Failed")}:
            continue
        spec, who = job["spec"], f"job {full_name(job)}"
        data = [part["uri"] for part in (spec["dataset"].get("mixture") or [spec["dataset"]])]
        for uri in (spec["baseModel"]["uri"], *data):
            yield from _use(who, job, uri, 0)
        nodes = spec.get("numNodes", 1)
        yield from _use(who, job, spec["output"]["uri"], nodes if nodes > 1 else 0)
    served = set(_served(snapshot))
    for version in snapshot.versions.items:
        if (version["metadata"]["namespace"], version["metadata"]["name"]) in served:
            yield from _use(f"version {full_name(version)}", version, version["spec"]["artifact"]["uri"], 0)


def _served(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """(namespace, version) of what services run or ask for."""
    for service in snapshot.services.items:
        namespace, model, status = service["metadata"]["namespace"], service["spec"]["model"], service.get("status", {})
        for role in ("stable", "candidate"):
            yield namespace, str((status.get(role) or {}).get("version") or "")
        if alias := model.get("alias"):
            for version in snapshot.versions.items:
                if version["metadata"]["namespace"] == namespace and carries(version, alias):
                    yield namespace, version["metadata"]["name"]
        else:
            yield namespace, model["versionRef"]["name"]


def _use(who: str, item: Object, uri: str, many: int) -> Iterator[tuple[str, str, int]]:
    if uri.startswith(_SCHEME):
        claim = uri.removeprefix(_SCHEME).partition("/")[0]
        yield who, f"{item['metadata']['namespace']}/{claim}", many
