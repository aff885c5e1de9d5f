"""`tunewright ask`: one question, and the answer as it comes."""

import sys
from collections.abc import Iterable

from tunewright_cli.commands.reach import reach
from tunewright_cli.exits import Exit
from tunewright_cli.kinds import parse_reference
from tunewright_cli.load.chat import Piece, chat_body, connect_to, stream_chat
from tunewright_cli.parse import Target


def run(
    target: Target,
    _: str,
    *,
    service: str,
    question: str,
    revision: str,
    max_tokens: int,
    temperature: float | None,
    url: str,
    model: str,
) -> Exit:
    """Print the answer."""
    endpoint = reach(target, service, revision, url)
    connection = endpoint.connect(0)
    connect_to(connection, endpoint.name)
    body = chat_body(
        model or parse_reference(service)[1], [{"role": "user", "content": question}], max_tokens, temperature
    )
    print_pieces(stream_chat(connection, endpoint.path, endpoint.headers, body))
    return Exit.OK


def print_pieces(pieces: Iterable[Piece]) -> str:
    """Print the pieces as they come, and a line's end; returns the whole answer."""
    answer = ""
    try:
        for piece in pieces:
            answer += piece.text
            sys.stdout.write(piece.text)
            sys.stdout.flush()
            if piece.finish == "length":
                sys.stderr.write(" … (cut at --max-tokens)")
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer
