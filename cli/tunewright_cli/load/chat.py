"""One streaming chat completion: the OpenAI API's server-sent events, piece by piece."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunewright_cli.exits import CliError, Exit

Message = dict[str, str]


class Piece(NamedTuple):
    """A part of the answer. The last one has no text: it says why the answer ended, and its length in tokens."""

    text: str
    finish: str = ""
    tokens: int | None = None


class AnswerError(CliError):
    """The server gave no whole answer."""


def chat_body(
    model: str, messages: Sequence[Message], max_tokens: int, temperature: float | None = None
) -> dict[str, Any]:
    """Body of the request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body if temperature is None else body | {"temperature": temperature}


def connect_to(connection: http.client.HTTPConnection, name: str) -> None:
    """Open the connection, if it is not open; raises CliError when nobody listens."""
    if connection.sock is not None:
        return
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise CliError(f"{name} cannot be reached ({error}): is it the right address, and does it run?") from None


def stream_chat(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> Iterator[Piece]:
    """The pieces of the answer as they come; raises AnswerError when it does not come, or breaks off.

    The connection can be used again after the last piece. Closing it before stops the model.
    """
    try:
        connection.request(
            "POST",
            f"{path}/chat/completions",
            json.dumps(body),
            {"Content-Type": "application/json", "Accept": "text/event-stream", **headers},
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise AnswerError(f"the server answered {answer.status}: {_reason(answer.read())}", _code(answer.status))
        yield from _pieces(answer)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise AnswerError(f"the answer broke off ({error or type(error).__name__}): try again") from None


def _pieces(answer: http.client.HTTPResponse) -> Iterator[Piece]:
    finish, tokens, done = "", None, False
    for line in answer:
        data = line.decode(errors="replace").strip().removeprefix("data:").strip()
        if not line.startswith(b"data:") or not data:
            continue
        if data == "[DONE]":
            done = True
            continue  # read to the end, or the connection cannot be used again
        event = json.loads(data)
        if "error" in event:
            raise AnswerError(f"the server broke off the answer: {_text(event['error'])}")
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        for choice in event.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            if text := (choice.get("delta") or {}).get("content"):
                yield Piece(text)
    answer.read()  # an answer with a length is not over at its last line
    if not done:
        raise AnswerError("the answer broke off before its end: try again, or look at tunewright why")
    yield Piece("", finish, tokens)


def _code(status: int) -> Exit:
    if status in {401, 403}:
        return Exit.REFUSED
    return Exit.NOT_READY if status == 503 else Exit.ERROR


def _reason(body: bytes) -> str:
    try:
        found = json.loads(body)
        return _text(found.get("error", found))
    except (ValueError, AttributeError):
        return body.decode(errors="replace").strip()[:300] or "nothing"


def _text(error: Any) -> str:
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)
