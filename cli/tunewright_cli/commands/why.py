"""`tunewright why`: the readiness checks of one object, with the event, the log and the fix of the first that fails."""

import json
import sys
from collections.abc import Sequence

from tunewright_cli.chain import Objects, find_focus
from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import ApiError
from tunewright_cli.commands.get import start_lists
from tunewright_cli.console import make_console
from tunewright_cli.exits import Exit
from tunewright_cli.kinds import Kind
from tunewright_cli.parse import Target
from tunewright_cli.readiness import Step, first_open, job_steps, service_steps, version_steps
from tunewright_cli.session import Session
from tunewright_cli.views.style import now_utc
from tunewright_cli.views.why import event_time, render_why

_LOG_LINES = 10


def run(target: Target, _: str, *, name: str, output: str) -> Exit:
    """Print the answer; exit code 2 while the object is not ready."""
    session = Session(target)
    objects = Objects.of(session.namespace, *start_lists(session.api, session.namespace, pods=True)())
    focus = find_focus(name, objects)
    kind = next(one for one in Kind if one.title == focus["kind"])
    steps = steps_of(kind, focus["name"], objects)
    culprit = first_open(steps)
    event = newest_event(session.api, session.namespace, culprit.about) if culprit else None
    log = last_lines(session.api, objects, culprit.pod) if culprit and culprit.pod else []
    if output == "json":
        report = {
            "kind": kind.title,
            "name": focus["name"],
            "ready": culprit is None,
            "fix": culprit.fix if culprit else "",
        }
        report |= {"steps": [step.to_dict() for step in steps], "event": event, "log": log}
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        make_console().print(render_why(f"{kind.short}/{focus['name']}", steps, event, log, now_utc()))
    return Exit.NOT_READY if culprit else Exit.OK


def steps_of(kind: Kind, name: str, objects: Objects) -> list[Step]:
    """The checks of one object that is there."""
    item = objects.by_kind(kind)[name]
    if kind is Kind.SERVICE:
        return service_steps(item, objects)
    steps = job_steps if kind is Kind.JOB else version_steps
    return steps(item, objects.pods, objects.namespace)


def newest_event(api: Api, namespace: str, about: Sequence[tuple[str, str]]) -> Object | None:
    """The newest event about any of these objects; None without one, or without permission to read them."""
    found: list[Object] = []
    for kind, name in about:
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        try:
            found += api.list_all(f"/api/v1/namespaces/{namespace}/events", {"fieldSelector": selector})[0]
        except ApiError:
            return None
    return max(found, key=event_time, default=None)


def last_lines(api: Api, objects: Objects, pod: str) -> list[str]:
    """The end of a pod's log, of the run before where the container does not run now."""
    found = next((one for one in objects.pods if one["metadata"]["name"] == pod), {})
    containers = found.get("status", {}).get("containerStatuses") or ()
    restarted = any(one.get("restartCount") and "running" not in (one.get("state") or {}) for one in containers)
    path = f"/api/v1/namespaces/{objects.namespace}/pods/{pod}/log"
    try:
        text = api.text(path, tailLines=_LOG_LINES, previous=str(restarted).lower())
    except ApiError as error:
        return [f"(the log cannot be read: {error})"]
    return text.rstrip().splitlines()
