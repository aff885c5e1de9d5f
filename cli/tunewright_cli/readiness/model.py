"""One readiness check and its outcome."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from tunewright_cli.chain.model import Object
from tunewright_cli.chain.states import is_seen


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "Passed"
    FAILED = "Failed"
    WAITING = "Waiting"  # under way, or it needs a person
    OPEN = "Open"  # something before it comes first


class Step(NamedTuple):
    """A check: what must hold, whether it does, and if not, why and what to do.

    `about` are the objects (kind, name) whose events tell more, `pod` is the one whose log does.
    """

    title: str
    outcome: Outcome
    message: str = ""
    fix: str = ""
    about: tuple[tuple[str, str], ...] = ()
    pod: str = ""

    def to_dict(self) -> dict[str, str]:
        """As `why -o json` prints it."""
        return {"title": self.title, "outcome": self.outcome.value, "message": self.message, "fix": self.fix}


def first_open(steps: Sequence[Step]) -> Step | None:
    """The first check that has not passed: a failure before what is only under way."""
    failed = next((step for step in steps if step.outcome is Outcome.FAILED), None)
    return failed or next((step for step in steps if step.outcome is not Outcome.PASSED), None)


def seen_step(item: Object) -> Step:
    """Whether the operator has looked at the object as it is now."""
    title = "the operator has looked at it"
    if is_seen(item):
        return Step(title, Outcome.PASSED)
    message = "no operator has looked at this object, or at its newest change"
    fix = "tunewright check (is the operator up, and does it watch this namespace?)"
    return Step(title, Outcome.FAILED, message, fix, about_of(item))


def about_of(*items: Object) -> tuple[tuple[str, str], ...]:
    """(kind, name) of objects."""
    return tuple((item["kind"], item["metadata"]["name"]) for item in items)


def accepted_step(item: Object, title: str, fix: str) -> Step:
    """What the condition Accepted says; not there means that nothing speaks against it."""
    for one in item.get("status", {}).get("conditions") or ():
        if one["type"] == "Accepted" and one["status"] == "False":
            return Step(title, Outcome.FAILED, one.get("message", ""), fix, about_of(item))
    return Step(title, Outcome.PASSED)


def after(steps: Iterable[Step], step: Step) -> Step:
    """`step`, open as long as one of `steps` has not passed and it has not failed by itself."""
    blocked = any(one.outcome is not Outcome.PASSED for one in steps)
    return step._replace(outcome=Outcome.OPEN) if blocked and step.outcome is Outcome.WAITING else step
