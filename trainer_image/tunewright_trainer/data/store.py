"""The prepared records on disk: one JSON object per line, written by prepare and read by train and evaluate."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunewright_trainer.data.records import Message
from tunewright_trainer.data.tokens import Encoded
from tunewright_trainer.errors import not_readable
from tunewright_trainer.files import replace_file


@dataclass(frozen=True)
class PreparedRecord:
    """A record with its tokens: `ids` of shape (length,), `spans` the positions that the assistant wrote."""

    line: int
    messages: list[Message]
    ids: list[int]
    spans: list[tuple[int, int]]

    @property
    def prompt(self) -> list[Message]:
        """The conversation up to the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1]["content"]


def prepared(line: int, messages: list[Message], encoded: Encoded) -> PreparedRecord:
    """Join a record and its tokens."""
    return PreparedRecord(line, messages, encoded.ids, encoded.spans)


def write(path: Path, records: Iterable[PreparedRecord]) -> None:
    """Write the records, all or nothing."""
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            entry = {"line": record.line, "messages": record.messages, "ids": record.ids, "spans": record.spans}
            file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")


def read(path: Path) -> list[PreparedRecord]:
    """Read what `write` wrote.

    Raises:
        StageError: INPUT_NOT_READABLE when the prepare stage has not run.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return [_from_json(line) for line in file]
    except FileNotFoundError as error:
        raise not_readable(path, "it does not exist; run the prepare stage first") from error


def _from_json(line: str) -> PreparedRecord:
    entry = json.loads(line)
    spans = [(start, end) for start, end in entry["spans"]]
    return PreparedRecord(entry["line"], entry["messages"], entry["ids"], spans)
