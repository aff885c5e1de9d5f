"""The prepared records on disk, read by position without loading the rest.

A directory holds the records as flat arrays that are mapped into memory, and one small file per subset:

    tokens.bin   uint32, one record after the other; of a pair first the chosen answer, then the rejected one
    spans.bin    uint32 pairs: the ranges that the assistant wrote
    texts.bin    the messages as JSON
    index.bin    one `INDEX` entry per record and one that closes the last
    NAME.npy     int64: the records of a subset, in their order

Prepare writes it, train and evaluate read it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from tunewright_api.names import Stage
from tunewright_trainer.data.formats import Message
from tunewright_trainer.data.tokens import Encoded
from tunewright_trainer.errors import not_yet
from tunewright_trainer.files import replace_file

INDEX = np.dtype(
    [
        ("tokens", "<i8"),
        ("rejected", "<i8"),
        ("spans", "<i8"),
        ("rejected_spans", "<i8"),
        ("texts", "<i8"),
        ("line", "<i8"),
        ("file", "<i4"),
        ("source", "<i2"),
        ("truncated", "?"),
    ]
)
"""Where a record begins in each array, where its rejected answer begins, and where it comes from."""

_NAMES = ("tokens", "spans", "texts", "index")


@dataclass(frozen=True)
class Answer:
    """A whole sequence with another answer: `ids` of shape (length,), `spans` as in PreparedRecord."""

    ids: list[int]
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class PreparedRecord:
    """A record with its tokens: `ids` of shape (length,), `spans` the positions that the assistant wrote.

    Attributes:
        line: Where it is in the user's file.
        messages: The conversation; empty for Text.
        ids: Token ids.
        spans: Half-open ranges of positions; the loss counts only these.
        rejected: Of a preference pair the same prompt with the worse answer.
        source: Number of the part of a mixture.
    """

    line: int
    messages: list[Message]
    ids: list[int]
    spans: list[tuple[int, int]]
    rejected: Answer | None = None
    source: int = 0

    @property
    def prompt(self) -> list[Message]:
        """The conversation up to the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last answer; empty for Text."""
        return self.messages[-1]["content"] if self.messages else ""


def prepared(line: int, messages: list[Message], encoded: Encoded) -> PreparedRecord:
    """Join a record and its tokens."""
    return PreparedRecord(line, messages, encoded.ids, encoded.spans)


class Writer:
    """Appends records to the arrays of a directory, which must exist."""

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, IO[bytes]] = {name: _array(directory, name).open("wb") for name in _NAMES}
        self._at = dict.fromkeys(_NAMES, 0)
        self.records = 0

    def add(self, record: PreparedRecord, *, file: int = 0, truncated: bool = False) -> None:
        """Append a record; `file` is its file's number."""
        entry = self._entry()
        entry["line"], entry["file"], entry["source"], entry["truncated"] = (
            record.line,
            file,
            record.source,
            truncated,
        )
        self._sequence(record.ids, record.spans)
        entry["rejected"], entry["rejected_spans"] = self._at["tokens"], self._at["spans"]
        if record.rejected:
            self._sequence(record.rejected.ids, record.rejected.spans)
        self._put("texts", json.dumps(record.messages, ensure_ascii=False, separators=(",", ":")).encode())
        self._files["index"].write(entry.tobytes())
        self.records += 1

    def close(self) -> None:
        """Close the last record and the files."""
        self._files["index"].write(self._entry().tobytes())
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self) -> NDArray[Any]:
        entry = np.zeros((), INDEX)
        for name in ("tokens", "spans", "texts"):
            entry[name] = self._at[name]
        return entry

    def _sequence(self, ids: list[int], spans: list[tuple[int, int]]) -> None:
        self._put("tokens", np.asarray(ids, "<u4").tobytes(), len(ids))
        self._put("spans", np.asarray(spans, "<u4").tobytes(), len(spans))

    def _put(self, name: str, content: bytes, size: int | None = None) -> None:
        self._files[name].write(content)
        self._at[name] += len(content) if size is None else size


class Records(Sequence[PreparedRecord]):
    """A subset of the records of a directory; each is read when it is asked for.

    Attributes:
        lengths: Tokens of each record, of the longer answer of a pair.
        sources: Number of the part of a mixture that each record comes from.
    """

    def __init__(self, directory: Path, positions: NDArray[np.int64]) -> None:
        self._directory = directory
        self._positions = positions
        self._index = _map(directory, "index", INDEX)
        self._tokens = _map(directory, "tokens", np.dtype("<u4"))
        self._spans = _map(directory, "spans", np.dtype("<u4")).reshape(-1, 2)
        self._texts = _map(directory, "texts", np.dtype("u1"))

    @property
    def lengths(self) -> NDArray[np.int64]:
        chosen = self._index["rejected"][self._positions] - self._index["tokens"][self._positions]
        rejected = self._index["tokens"][self._positions + 1] - self._index["rejected"][self._positions]
        longest: NDArray[np.int64] = np.maximum(chosen, rejected)
        return longest

    @property
    def sources(self) -> NDArray[np.int16]:
        part: NDArray[np.int16] = self._index["source"][self._positions]
        return part

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, position: int) -> PreparedRecord: ...

    @overload
    def __getitem__(self, position: slice) -> "Records": ...

    def __getitem__(self, position: int | slice) -> "PreparedRecord | Records":
        if isinstance(position, slice):
            return Records(self._directory, self._positions[position])
        number = self._positions[position]
        entry, after = self._index[number], self._index[number + 1]
        rejected = self._sequence(entry["rejected"], after["tokens"], entry["rejected_spans"], after["spans"])
        ids, spans = self._sequence(entry["tokens"], entry["rejected"], entry["spans"], entry["rejected_spans"])
        return PreparedRecord(
            line=int(entry["line"]),
            messages=json.loads(self._texts[entry["texts"] : after["texts"]].tobytes()),
            ids=ids,
            spans=spans,
            rejected=Answer(*rejected) if rejected[0] else None,
            source=int(entry["source"]),
        )

    def _sequence(self, start: int, end: int, first: int, last: int) -> tuple[list[int], list[tuple[int, int]]]:
        return self._tokens[start:end].tolist(), [(a, b) for a, b in self._spans[first:last].tolist()]


def write_subset(path: Path, positions: Iterable[int]) -> None:
    """Name a subset of the records beside which `path` lies."""
    np.save(path, np.fromiter(positions, np.int64))


def write(path: Path, records: Iterable[PreparedRecord]) -> None:
    """Write records into the directory of `path`, which names them all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path.parent) as writer:
        for record in records:
            writer.add(record)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.arange(writer.records))


def read(path: Path) -> Records:
    """A subset, without loading its records.

    Raises:
        StageError: INPUT_NOT_READABLE when the prepare stage has not run.
    """
    try:
        positions: NDArray[np.int64] = np.load(path)
    except FileNotFoundError as error:
        raise not_yet(path, Stage.PREPARE) from error
    return Records(path.parent, positions)


def index_of(directory: Path) -> NDArray[Any]:
    """The INDEX entries of all records of a directory, without the closing one."""
    return _map(directory, "index", INDEX)[:-1]


def _array(directory: Path, name: str) -> Path:
    return directory / f"{name}.bin"


def _map(directory: Path, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    path = _array(directory, name)
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r")
