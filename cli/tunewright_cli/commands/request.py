"""`tunewright promote|abort|pause|resume|retry`: one annotation, and the operator's answer to it."""

import sys
import time
from datetime import UTC, datetime

from tunewright_api.names import ANNOTATION_REQUEST
from tunewright_cli.cluster.client import Object
from tunewright_cli.cluster.errors import ExpiredError, ForbiddenError
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.kinds import Kind
from tunewright_cli.parse import Target
from tunewright_cli.rollout_request import answer_of, format_request, revision_for
from tunewright_cli.session import Session


def run(target: Target, verb: str, *, service: str, revision: str, no_wait: bool, timeout: float) -> Exit:
    """Write the request, and wait until the operator has handled it."""
    session = Session(target)
    found = session.find(Kind.SERVICE, service)
    service = found["metadata"]["name"]
    request = format_request(verb, revision_for(verb, found, revision), datetime.now(UTC))
    body = {"metadata": {"annotations": {ANNOTATION_REQUEST: request}}}
    try:
        written = session.api.merge(Kind.SERVICE.path(session.namespace, service), body)
    except ForbiddenError as error:
        advice = "you need the verb patch on inferenceservices, which the role tunewright-edit has"
        raise CliError(f"you may not {verb} {service}: {advice} (the apiserver said: {error})", Exit.REFUSED) from None
    if no_wait:
        sys.stdout.write(f"asked for: {request}\n")
        return Exit.OK
    answer = wait_for_answer(session, written, request, timeout)
    if answer is None:
        sentence = f"the operator has not answered within {timeout:g} s: look at it with tunewright check"
        raise CliError(sentence, Exit.NOT_READY)
    if answer["outcome"] == "Refused":
        raise CliError(f"{verb} was refused: {answer.get('message') or 'the operator gives no reason'}", Exit.REFUSED)
    sys.stdout.write(f"{service}: {answer.get('message') or f'{verb} is done'}\n")
    return Exit.OK


def wait_for_answer(session: Session, service: Object, request: str, timeout: float) -> Object | None:
    """status.lastHandledRequest once it echoes the request; None when the time is over."""
    name, deadline = service["metadata"]["name"], time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if answer := answer_of(service, request):
            return answer
        try:
            changes = session.api.watch(
                Kind.SERVICE.path(session.namespace),
                service["metadata"]["resourceVersion"],
                {"fieldSelector": f"metadata.name={name}"},
                seconds=left,
            )
            for _, changed in changes:
                if answer := answer_of(changed, request):
                    return answer
        except ExpiredError:
            pass
        service = session.find(Kind.SERVICE, name)
    return answer_of(service, request)
