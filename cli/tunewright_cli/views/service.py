"""A service in the tree: revisions with their weights, the newest check, the newest decisions."""

from datetime import datetime, timedelta

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tunewright_cli.chain.model import Candidate, Object, Revision, Service, State
from tunewright_cli.chain.states import because
from tunewright_cli.chain.waiting import next_verb
from tunewright_cli.views.pods import add_pods
from tunewright_cli.views.style import STATES, age, bar, duration, join, mark, number, parse_time, verdict

_HISTORY = 4
_PERCENT = {"ErrorRate", "CompletionRate"}
_DECISIONS = {
    "Promoted": "green",
    "Advanced": "green",
    "RolledBack": "red",
    "Aborted": "red",
    "Waiting": "yellow",
    "Paused": "yellow",
}


def add_service(tree: Tree, service: Service, now: datetime, wide: bool) -> None:
    """The service and all that it says about its rollout."""
    branch = tree.add(_headline(service, now))
    if service["message"]:
        branch.add(Text(service["message"], style=STATES[service["state"]][1]))
    if service["providerMessage"] and service["candidate"]:
        branch.add(Text(service["providerMessage"], style="yellow"))
    for revision, colour in ((service["stable"], "green"), (service["candidate"], "cyan")):
        if revision:
            line = branch.add(_revision(revision, colour))
            add_pods(line, revision["pods"], now, wide)
    if service["candidate"]:
        branch.add(_standing(service["candidate"], service, now))
    if service["analysis"] and (service["candidate"] or service["rejected"]):
        branch.add(_check(service["analysis"], now))
    if service["rejected"]:
        branch.add(_rejected(service["rejected"], now))
    if service["history"]:
        branch.add(_history(service["history"] if wide else service["history"][:_HISTORY], now))
    if failure := service["lastFailure"]:
        told = service["state"] in {State.READY, State.IDLE} or failure["hint"] in service["message"]
        if not told:
            branch.add(Text(f"pod {failure['pod']}: {failure['reason']}: {failure['hint']}", style="red"))
    if wide:
        _add_performance(branch, service)
    add_pods(branch, service["otherPods"], now, wide)


def _headline(service: Service, now: datetime) -> Text:
    wants = service["alias"] and f"{service['alias']} = {service['wants'] or 'nothing'}"
    return join(
        [
            Text.assemble(mark(service["state"]), " service ", (service["name"], "bold")),
            Text(service["state"].value, style=STATES[service["state"]][1]),
            Text(service["reason"] if service["reason"] != "Serving" else "", style="dim"),
            Text(wants or "", style="magenta"),
            _strategy(service),
            Text(age(service["created"], now), style="dim"),
        ]
    )


def _strategy(service: Service) -> str:
    """`Canary 10, 20, 50 by Istio`."""
    candidate = service["candidate"]
    steps = " ".join(map(str, (*candidate["steps"], 100))) if candidate and candidate["steps"] else ""
    by = f"by {service['provider']}" if service["provider"] != "None" else ""
    return " ".join(part for part in (service["rules"]["strategy"], steps, by) if part)


def _revision(revision: Revision, colour: str) -> Text:
    pods = f"{revision['readyReplicas']}/{revision['replicas']} ready"
    whole = revision["readyReplicas"] >= revision["replicas"]
    return join(
        [
            Text(f"{revision['role']:<9}", style=colour),
            Text(revision["version"], style="bold"),
            Text(revision["revision"], style="dim"),
            join([bar(revision["weight"], colour), f"{revision['weight']:>3}%"], " "),
            Text(pods, style="" if whole else "yellow"),
        ]
    )


def _standing(candidate: Candidate, service: Service, now: datetime) -> Text:
    """Where the candidate stands, and what happens next."""
    rules, parts = service["rules"], [Text(candidate["phase"], style="cyan")]
    if candidate["paused"]:
        parts = [Text("paused", style="yellow")]
    if candidate["steps"]:
        parts.append(Text(f"step {candidate['step']} of {len(candidate['steps'])}"))
    if candidate["mirrorWeight"]:
        parts.append(Text(f"gets copies of {candidate['mirrorWeight']}% of the requests"))
    if candidate["failedChecks"]:
        parts.append(Text(f"{candidate['failedChecks']} of {rules['threshold']} checks failed", style="red"))
    if candidate["inconclusiveChecks"]:
        text = f"{candidate['inconclusiveChecks']} of {rules['inconclusiveLimit']} checks inconclusive"
        parts.append(Text(text, style="yellow"))
    parts += [Text(_next(candidate, service, now)), Text(f"since {age(candidate['startedAt'], now)}", style="dim")]
    return join(parts, " · ")


def _next(candidate: Candidate, service: Service, now: datetime) -> str:
    name, rules = service["name"], service["rules"]
    if candidate["paused"]:
        return f"goes on with: tunewright resume {name}"
    if candidate["phase"] == "Waiting":
        verb = next_verb(
            weight=candidate["weight"],
            steps=candidate["steps"],
            gates=rules["manualGates"],
            opened=candidate["openedGates"],
            failed=(service["analysis"] or {}).get("verdict") == "Fail",
        )
        return f"waits for: tunewright {verb} {name}" if verb else "waits for a good check: the newest one failed"
    if candidate["phase"] == "Starting":
        return ""
    last = parse_time(candidate["checkedAt"])
    if last is None:
        return f"checked every {duration(rules['intervalSeconds'])}"
    left = (last + timedelta(seconds=rules["intervalSeconds"]) - now).total_seconds()
    return f"next check in {duration(left)}" if left > 0 else "checking"


def _check(analysis: Object, now: datetime) -> Group:
    """The numbers of the newest check against their limits."""
    stable = analysis.get("stableRequests")
    requests = f"{number(analysis.get('requests'))} requests" + (
        f" (stable {number(stable)})" if stable is not None else ""
    )
    head = join(
        [
            f"check at {analysis['weight']}%",
            verdict(analysis["verdict"]),
            f"{requests} in {duration(analysis.get('windowSeconds', 0))}",
            Text(f"{age(analysis['time'], now)} ago", style="dim"),
        ]
    )
    lines: list[Text | Table] = [head]
    if analysis["verdict"] != "Pass" and analysis.get("message"):
        lines.append(Text(f"  {because(analysis)}", style=verdict(analysis["verdict"]).style))
    if analysis.get("metrics"):
        lines.append(_metrics(analysis["metrics"]))
    if probes := analysis.get("probes"):
        text = join([f"  probes {probes['passed']} of {probes['total']} right", verdict(probes["verdict"])])
        lines.append(join([text, Text(probes.get("message") or "", style="dim")]))
    return Group(*lines)


def _metrics(metrics: list[Object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "right", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row("", *(Text(title, style="dim") for title in ("metric", "stable", "candidate", "limit", "verdict")))
    for metric in metrics:
        unit = " %" if metric["name"] in _PERCENT else " ms"
        table.add_row(
            "",
            metric["name"],
            _value(metric.get("stable"), unit),
            _value(metric.get("candidate"), unit),
            _limit(metric.get("thresholdRange") or {}, unit),
            verdict(metric["verdict"]),
        )
    return table


def _value(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{number(value)}{unit}"


def _limit(limits: Object, unit: str) -> str:
    least, most = limits.get("min"), limits.get("max")
    if least is not None and most is not None:
        return f"{number(least)} to {number(most)}{unit}"
    if least is not None:
        return f"≥ {number(least)}{unit}"
    return f"≤ {number(most)}{unit}" if most is not None else ""


def _rejected(rejected: Object, now: datetime) -> Text:
    return join(
        [
            Text("rejected ", style="red"),
            Text(rejected["version"], style="bold"),
            Text(rejected["revision"], style="dim"),
            Text(because(rejected), style="red"),
            Text(age(rejected["time"], now), style="dim"),
        ]
    )


def _history(decisions: list[Object], now: datetime) -> Group:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column()
    for one in decisions:
        times = f" ×{one['count']}" if one.get("count", 1) > 1 else ""
        table.add_row(
            "",
            Text(age(one["time"], now), style="dim"),
            Text(one["decision"] + times, style=_DECISIONS.get(one["decision"], "")),
            one["version"],
            f"{one['weight']}%",
            Text(one.get("message") or one["reason"], style="dim"),
        )
    return Group(Text("history"), table)


def _add_performance(branch: Tree, service: Service) -> None:
    if speed := service["performance"]:
        branch.add(
            f"one request alone: first token {number(speed['ttftMilliseconds'])} ms, then "
            f"{number(speed['tpotMilliseconds'])} ms per token, {number(speed['tokensPerSecond'])} tokens/s"
        )
