"""`tunewright check`: look, say what is broken and how to fix it, and wait for it if asked to."""

import json
import sys
import time
from collections.abc import Sequence

from tunewright_cli.checks import Finding, Level, Snapshot, run_checks
from tunewright_cli.cluster.credentials import CredentialError
from tunewright_cli.cluster.errors import ApiError, UnauthorizedError, UnreachableError
from tunewright_cli.cluster.kubeconfig import ConfigError
from tunewright_cli.console import make_console
from tunewright_cli.exits import Exit
from tunewright_cli.parse import Target
from tunewright_cli.session import Session
from tunewright_cli.survey import survey
from tunewright_cli.views.check import render_findings

_PAUSE_SECONDS = 1.0


def run(target: Target, _: str, *, wait: bool, timeout: float, output: str) -> Exit:
    """Print the findings; exit code 2 while something is broken."""
    findings = look_until_well(target, timeout) if wait else look_once(target)
    if output == "json":
        report = [finding.to_dict() for finding in findings]
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        make_console().print(render_findings(findings))
    return Exit.NOT_READY if is_broken(findings) else Exit.OK


def look_once(target: Target) -> list[Finding]:
    """The findings now."""
    try:
        session = Session(target)
        if sys.stderr.isatty():
            sys.stderr.write(f"looking at {session.config.server} …\n")
        return run_checks(survey(session.api, session.namespace))
    except (ConfigError, CredentialError, UnreachableError, UnauthorizedError) as error:
        return run_checks(Snapshot(unreachable=str(error)))
    except ApiError as error:
        sentence = f"the apiserver does not work ({error}): look at its health with kubectl get --raw /readyz?verbose"
        return run_checks(Snapshot(unreachable=sentence))


def look_until_well(target: Target, timeout: float) -> list[Finding]:
    """Look again and again until nothing is broken, or the time is over; tell what is waited for."""
    deadline, told = time.monotonic() + timeout, ""
    console = make_console(stderr=True)
    while True:
        findings = look_once(target)
        if not is_broken(findings) or time.monotonic() >= deadline:
            return findings
        first = next(finding for finding in findings if finding.level is Level.BROKEN)
        if first.message != told:
            told = first.message
            console.print(f"waiting: {first.check}: {told}", style="dim")
        time.sleep(min(_PAUSE_SECONDS, max(deadline - time.monotonic(), 0)))


def is_broken(findings: Sequence[Finding]) -> bool:
    """Whether anything will not work."""
    return any(finding.level is Level.BROKEN for finding in findings)
