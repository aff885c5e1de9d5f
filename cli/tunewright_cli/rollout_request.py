"""What a person asks of a rollout: one annotation, VERB@REVISION/ID. Pure."""

from datetime import datetime

from tunewright_cli.chain.model import Object
from tunewright_cli.exits import CliError, Exit


def revision_for(verb: str, service: Object, given: str = "") -> str:
    """The revision that a request means: the given one, else the one that the verb can only be about.

    Raises CliError (refused) when there is nothing to ask for.
    """
    if given:
        return given
    name, status = service["metadata"]["name"], service.get("status", {})
    if verb == "retry":
        if rejected := status.get("rejected"):
            return str(rejected["revision"])
        raise CliError(f"no revision of {name} was rolled back: there is nothing to retry", Exit.REFUSED)
    if candidate := status.get("candidate"):
        return str(candidate["revision"])
    rejected = status.get("rejected")
    advice = f"{rejected['version']} was rolled back, try it again with: tunewright retry {name}" if rejected else ""
    sentence = f"no rollout of {name} is under way: {advice or f'there is nothing to {verb}'}"
    raise CliError(sentence, Exit.REFUSED)


def format_request(verb: str, revision: str, now: datetime) -> str:
    """Value of the annotation; the time tells two equal requests apart."""
    return f"{verb}@{revision}/{now:%Y-%m-%dT%H:%M:%S.%f}Z"


def answer_of(service: Object, request: str) -> Object | None:
    """status.lastHandledRequest once it echoes this request."""
    handled: Object | None = service.get("status", {}).get("lastHandledRequest")
    return handled if handled and handled["request"] == request else None
