"""`tunewright chat`: a conversation; the server sees all of it with each question."""

import contextlib
import gc
import sys

from tunewright_cli.commands.ask import print_pieces
from tunewright_cli.commands.reach import reach
from tunewright_cli.exits import Exit
from tunewright_cli.kinds import parse_reference
from tunewright_cli.load.chat import AnswerError, Message, chat_body, connect_to, stream_chat
from tunewright_cli.parse import Target


def run(
    target: Target,
    _: str,
    *,
    service: str,
    revision: str,
    max_tokens: int,
    temperature: float | None,
    url: str,
    model: str,
) -> Exit:
    """Talk until an empty line, or the end of the input."""
    gc.enable()
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines with it)
    endpoint = reach(target, service, revision, url)
    connection = endpoint.connect(0)
    connect_to(connection, endpoint.name)
    messages: list[Message] = []
    if sys.stdin.isatty():
        sys.stderr.write(f"{endpoint.name}; an empty line or Ctrl-D ends, Ctrl-C stops an answer\n")
    while question := _read():
        messages.append({"role": "user", "content": question})
        body = chat_body(model or parse_reference(service)[1], messages, max_tokens, temperature)
        try:
            answer = print_pieces(stream_chat(connection, endpoint.path, endpoint.headers, body))
            messages.append({"role": "assistant", "content": answer})
        except (KeyboardInterrupt, AnswerError) as error:
            # A closed connection stops the model, too.
            connection.close()
            messages.pop()
            if isinstance(error, AnswerError):
                sys.stderr.write(f"{error}\n")
    return Exit.OK


def _read() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return ""
