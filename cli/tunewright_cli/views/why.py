"""`why`: the answer first, then the checks, then what the cluster and the log say, then the fix."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from tunewright_cli.chain.model import Object
from tunewright_cli.readiness import Outcome, Step, first_open
from tunewright_cli.views.style import age, join

_MARKS = {
    Outcome.PASSED: ("✓", "green"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.WAITING: ("◐", "yellow"),
    Outcome.OPEN: ("·", "dim"),
}


def render_why(
    subject: str, steps: Sequence[Step], event: Object | None, log: Sequence[str], now: datetime
) -> RenderableType:
    """The whole screen; `event` is the newest one about the first open check, `log` the last lines of its pod."""
    culprit = first_open(steps)
    lines: list[Text] = [_answer(subject, culprit), Text()]
    lines += [_step(step) for step in steps]
    if culprit is None:
        return Group(*lines)
    lines.append(Text())
    if event:
        lines.append(_event(event, now))
    if log:
        lines.append(Text(f"log    pod {culprit.pod}, its last lines:", style="dim"))
        lines += [Text(f"       {line}") for line in log]
    if culprit.fix:
        lines.append(join([Text("fix  ", style="bold green"), culprit.fix]))
    return Group(*lines)


def _answer(subject: str, culprit: Step | None) -> Text:
    if culprit is None:
        return Text.assemble((subject, "bold"), (" is ready", "green"))
    word, colour = ("is not ready", "red") if culprit.outcome is Outcome.FAILED else ("is not ready yet", "yellow")
    reason = f": {culprit.message or culprit.title}"
    return Text.assemble((subject, "bold"), (f" {word}", colour), reason)


def _step(step: Step) -> Text:
    sign, colour = _MARKS[step.outcome]
    shown = step.message if step.outcome in {Outcome.FAILED, Outcome.WAITING} else ""
    return Text.assemble(
        (f"{sign} ", colour), (step.title, "dim" if step.outcome is Outcome.OPEN else ""), f": {shown}" if shown else ""
    )


def _event(event: Object, now: datetime) -> Text:
    when = event_time(event)
    about = event.get("involvedObject") or {}
    return join(
        [
            Text("event", style="dim"),
            Text(f"{age(when, now)} ago" if when else "", style="dim"),
            f"{about.get('kind', '')}/{about.get('name', '')}",
            Text(event.get("reason") or "", style="yellow" if event.get("type") == "Warning" else "cyan"),
            (event.get("message") or "").strip(),
        ]
    )


def event_time(event: Object) -> str:
    """When the event was last seen."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(
        series
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
