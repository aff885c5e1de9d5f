"""The chain as one tree: lineages first, in the order in which they came to be, then the service."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from tunewright_cli.chain.model import Chain, Dataset, Job, Lineage, State, Version
from tunewright_cli.kinds import Kind
from tunewright_cli.views.pods import add_pods
from tunewright_cli.views.service import add_service
from tunewright_cli.views.style import STATES, age, bar, duration, join, mark, number, parse_time, short_digest, size

_SHORT = {kind.title: kind.short for kind in Kind}


def render_chain(chain: Chain, now: datetime, *, wide: bool = False, short: bool = False) -> RenderableType:
    """The whole screen; `wide` adds every pod, whole digests and the whole history. `short` leaves one line of each
    version's past, for a terminal that would cut off what the service says."""
    focus, (sign, colour) = chain["focus"], STATES[chain["state"]]
    title = Text.assemble(
        (f"{_SHORT[focus['kind']]}/{focus['name']}", "bold"),
        (f"  {chain['namespace']}", "dim"),
        (f"  {sign} {chain['state'].value}", colour),
    )
    tree = Tree(title, guide_style="dim")
    for lineage in chain["lineages"]:
        if short:
            _add_newest(tree, lineage, now, wide)
        else:
            _add_lineage(tree, lineage, now, wide)
    for service in chain["services"]:
        add_service(tree, service, now, wide)
    return Group(tree)


def _add_lineage(tree: Tree, lineage: Lineage, now: datetime, wide: bool) -> None:
    branch = tree
    if lineage["dataset"]:
        branch = branch.add(_dataset(lineage["dataset"]))
    if lineage["job"]:
        branch = branch.add(_job(lineage["job"], now))
        _add_job_details(branch, lineage["job"], lineage["version"], now, wide)
    if lineage["version"]:
        branch = branch.add(_version(lineage["version"], now, wide))
        add_pods(branch, lineage["version"]["pods"], now, wide)


def _add_newest(tree: Tree, lineage: Lineage, now: datetime, wide: bool) -> None:
    """The last thing that there is of a lineage."""
    if version := lineage["version"]:
        tree.add(_version_line(version, now, wide))
    elif job := lineage["job"]:
        tree.add(_job(job, now))
    elif dataset := lineage["dataset"]:
        tree.add(_dataset(dataset))


def _dataset(dataset: Dataset) -> Text:
    counts = ""
    if dataset["records"] is not None:
        counts = f"{dataset['records']} records: {dataset['train']} to train on, {dataset['validation']} held out"
        if dataset["truncated"]:
            counts += f", {dataset['truncated']} cut"
    return join([Text.assemble("dataset ", (dataset["uri"], "bold")), dataset["format"], Text(counts, style="dim")])


def _job(job: Job, now: datetime) -> Text:
    started, ended = parse_time(job["started"]), parse_time(job["completed"])
    took = f"took {duration((ended - started).total_seconds())}" if started and ended else age(job["created"], now)
    progress = job["progress"] or {}
    parts: list[Text | str] = [
        Text.assemble(mark(job["state"]), " job ", (job["name"], "bold")),
        Text(job["stage"], style=STATES[job["state"]][1]),
        f"{job['method']} on {job['nodes']} {'node' if job['nodes'] == 1 else 'nodes'}",
    ]
    if progress and job["state"] is State.PROGRESSING:
        parts.append(join([bar(progress.get("percent", 0), "cyan"), f"{progress.get('percent', 0)}%"], " "))
    moving = job["state"] in {State.PROGRESSING, State.READY}
    stopped = f"at step {progress.get('step')} of {progress.get('totalSteps')}" if progress else ""
    return join([*parts, str(progress.get("summary") or "") if moving else stopped, Text(took, style="dim")])


def _add_job_details(branch: Tree, job: Job, version: Version | None, now: datetime, wide: bool) -> None:
    if job["state"] is not State.READY and job["message"] and job["message"] != (job["progress"] or {}).get("summary"):
        branch.add(Text(job["message"], style=STATES[job["state"]][1]))
    for restart in job["restarts"]:
        where = join([restart.get("pod") or "", restart.get("node") or ""], " on ")
        lost = f"attempt {restart['attempt']} was lost: {restart['cause']}"
        branch.add(join([Text(lost, style="yellow"), where, Text(age(restart["time"], now), style="dim")]))
    if job["evaluation"] and not (version and version["evaluation"]):
        branch.add(evaluation(job["evaluation"]))
    add_pods(branch, job["pods"], now, wide)


def _version(version: Version, now: datetime, wide: bool) -> RenderableType:
    lines = [_version_line(version, now, wide)]
    if version["verified"] == "False":
        lines.append(Text(f"  {version['message']}", style="red"))
    if version["evaluation"]:
        lines.append(Text("  ") + evaluation(version["evaluation"]))
    return Group(*lines)


def _version_line(version: Version, now: datetime, wide: bool) -> Text:
    digest = version["digest"] if wide else short_digest(version["digest"])
    return join(
        [
            Text.assemble(mark(version["state"]), " version ", (version["name"], "bold")),
            digest,
            size(version["sizeBytes"]),
            _verified(version),
            _approval(version),
            Text(", ".join(f"@{alias}" for alias in version["aliases"]), style="magenta"),
            Text(age(version["created"], now), style="dim"),
        ]
    )


def _verified(version: Version) -> Text:
    return {
        "True": Text("verified", style="green"),
        "False": Text("not what the record says", style="red"),
    }.get(version["verified"], Text("not verified yet", style="cyan"))


def _approval(version: Version) -> Text:
    approval = version["approval"]
    because = f" ({approval['reason']})" if approval["reason"] and approval["decision"] == "Rejected" else ""
    return {
        "Approved": Text(f"approved by {approval['by']}", style="green"),
        "Rejected": Text(f"rejected by {approval['by']}{because}", style="red"),
    }.get(approval["decision"] or "", Text(f"waits for: tunewright approve {version['name']}", style="yellow"))


def evaluation(results: list[dict[str, object]]) -> Text:
    """`Loss 3.57 → 0.055 (<= 0.5 ✓)`: base model, then tuned model, and the gate."""
    parts = []
    for result in results:
        text = Text(f"{result['metric']} {number(_float(result['base']))} → {number(_float(result['tuned']))}")
        if result.get("gate"):
            kept = bool(result.get("passed"))
            text.append(f" ({result['gate']} {'✓' if kept else '✗'})", style="green" if kept else "red")
        parts.append(text)
    return join(parts)


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
