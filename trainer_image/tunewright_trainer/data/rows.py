"""One file of the user's -> its rows, one at a time: JSON Lines, a JSON array, CSV, Parquet or Arrow; gzip or zstd."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, cast

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_PACKED = frozenset({".gz", ".gzip", ".zst", ".zstd"})
_CHUNK = 1 << 16
MAX_ITEM = 64 << 20
"""Characters that one element of a JSON array may have."""
_BATCH = 1024


class RowRule(StrEnum):
    """Why a row is not trained on as it is."""

    NOT_UTF8 = "NotUtf8"
    NOT_JSON = "NotJson"
    NOT_CSV = "NotCsv"
    WRONG_SHAPE = "WrongShape"
    AMBIGUOUS = "Ambiguous"
    TEMPLATE_REFUSED = "TemplateRefused"
    NOTHING_TO_LEARN = "NothingToLearn"
    TOO_LONG = "TooLong"
    TRUNCATED = "Truncated"
    SPLIT = "Split"
    DUPLICATE = "Duplicate"


@dataclass(frozen=True)
class Row:
    """What a file says in one place: `line` is 1-based (in Parquet and Arrow the number of the row)."""

    line: int
    value: Any


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row, and what to do."""

    line: int
    reason: str
    rule: RowRule = RowRule.WRONG_SHAPE
    row: Any = None


class BadRecordError(ValueError):
    """A row that is not a record; the text is for people."""

    def __init__(self, text: str, rule: RowRule = RowRule.WRONG_SHAPE) -> None:
        super().__init__(text)
        self.rule = rule


def read_rows(path: Path, name: str = "") -> Iterator[Row | Problem]:
    """The rows of a file, by its content and then by its name (.csv, .json, .parquet, .arrow; else JSON Lines).

    Args:
        path: Where it is.
        name: What the user calls it, if that is not the path.

    Raises:
        StageError: INVALID_DATA for a file that is damaged as a whole.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.peek(4)[:4]
        suffix = path.with_suffix("").suffix if path.suffix.lower() in _PACKED else path.suffix
        suffix = suffix.lower()
        with _damage_named(name or str(path)):
            if head == _PARQUET or suffix == ".parquet":
                yield from _parquet(file)
            elif suffix == ".arrow":
                yield from _arrow(file)
            else:
                yield from _text_rows(unpacked(file, head), suffix)


def unpacked(file: IO[bytes], head: bytes) -> IO[bytes]:
    """The content of a file that may be compressed; `head` are its first bytes."""
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
    return file


def parse_json_line(number: int, raw: bytes) -> Row | Problem:
    """One line of JSON Lines."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8"
        return Problem(number, reason, RowRule.NOT_UTF8, raw.decode("utf-8", "replace"))
    try:
        return Row(number, json.loads(text))
    except json.JSONDecodeError as error:
        reason = f"not valid JSON ({error.msg}, column {error.colno}): write one complete JSON object per line"
    except RecursionError:
        reason = "nested too deeply: write one flat JSON object per line"
    return Problem(number, reason, RowRule.NOT_JSON, text)


def json_lines(lines: Iterable[bytes]) -> Iterator[Row | Problem]:
    """Each line that is not blank; numbers start at 1 and count blank lines."""
    for number, raw in enumerate(lines, start=1):
        content = raw.removeprefix(_BOM) if number == 1 else raw
        if content.strip():
            yield parse_json_line(number, content)


def _text_rows(file: IO[bytes], suffix: str) -> Iterator[Row | Problem]:
    if suffix == ".csv":
        yield from _csv(file)
        return
    if suffix == ".json":
        first = file.read(_CHUNK)
        if first.removeprefix(_BOM).lstrip()[:1] == b"[":
            yield from _json_array(_chunks(first, file))
            return
        yield from json_lines(_lines(first, file))
        return
    yield from json_lines(file)


def _chunks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    yield first
    while chunk := file.read(_CHUNK):
        yield chunk


def _lines(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    *whole, rest = first.splitlines(keepends=True) or [b""]
    yield from whole
    yield rest if rest.endswith(b"\n") else rest + file.readline()
    yield from file


def _json_array(chunks: Iterator[bytes]) -> Iterator[Row | Problem]:
    """The elements of an array without reading it whole. After an element that is no JSON the rest is unreadable."""
    text = _ArrayText(chunks)
    text.peek()
    text.skip()
    expected = "" if text.peek() == "]" else ","
    while expected:
        text.peek()
        line = text.line
        value, reason = text.element()
        if reason:
            advice = "correct it: after it nothing of the array can be read"
            yield Problem(line, f"{reason}: {advice}", RowRule.NOT_JSON)
            return
        yield Row(line, value)
        expected = text.peek()
        if expected not in {",", "]"}:
            found = repr(expected) if expected else "the end of the file"
            yield Problem(text.line, f"found {found} where a comma or ] must be: correct the array", RowRule.NOT_JSON)
            return
        if expected == "]":
            break
        text.skip()
    text.skip()
    if rest := text.peek():
        yield Problem(text.line, f"found {rest!r} after the array: write one array", RowRule.NOT_JSON)


class _ArrayText:
    """A window on the text of an array: what was read of it and not yet parsed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks: Iterator[bytes] | None = chunks
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._at, self.line = "", 0, 1

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Go past the character that `peek` gave."""
        self._at += 1

    def element(self) -> tuple[Any, str]:
        """(value, what is wrong with it)."""
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MAX_ITEM or not self._fill():
                    return None, f"not valid JSON ({error.msg})"
                continue
            except RecursionError:
                return None, "nested too deeply"
            # A number at the end of the window may go on behind it.
            if end < len(self._text) or not self._fill():
                self.line += self._text.count("\n", self._at, end)
                self._at = end
                return value, ""

    def _fill(self) -> bool:
        """Read on; twice as much as is there, so that a long element is not parsed again and again."""
        if self._chunks is None:
            return False
        parts = [self._text[self._at :]]
        wanted = max(_CHUNK, len(parts[0]))
        while wanted > 0:
            chunk = next(self._chunks, None)
            parts.append(self._decode(chunk or b"", final=chunk is None))
            wanted -= len(parts[-1])
            if chunk is None:
                self._chunks = None
                break
        self._text, self._at = "".join(parts), 0
        return True


def _csv(file: IO[bytes]) -> Iterator[Row | Problem]:
    """The first line names the columns; a cell that must be a list or an object holds it as JSON."""
    csv.field_size_limit(MAX_ITEM)
    text = io.TextIOWrapper(cast("Any", file), encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    start = 1
    try:
        names = next(reader, None)
        if names is None:
            return
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise BadRecordError("the first line must name each column, each name once", RowRule.NOT_CSV)
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(names):
                reason = f"{len(cells)} cells instead of {len(names)}: put double quotes around a cell with a comma"
                yield Problem(line, reason, RowRule.NOT_CSV, cells)
            elif any(_has_raw_bytes(cell) for cell in cells):
                yield Problem(line, "not UTF-8: save the file as UTF-8", RowRule.NOT_UTF8)
            else:
                yield Row(line, {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        yield Problem(start, f"not valid CSV ({error}): after it nothing can be read", RowRule.NOT_CSV)
    except BadRecordError as error:
        yield Problem(start, str(error), error.rule)


def _cell(name: str, cell: str) -> Any:
    if name in {"messages", "metadata"}:
        try:
            return json.loads(cell)
        except (json.JSONDecodeError, RecursionError):
            return cell
    return cell


def _has_raw_bytes(cell: str) -> bool:
    """surrogateescape keeps bytes that are not UTF-8 as U+DC80 to U+DCFF."""
    return any("\udc80" <= character <= "\udcff" for character in cell)


def _parquet(file: IO[bytes]) -> Iterator[Row]:
    from pyarrow import parquet  # type: ignore[import-untyped]

    number = 0
    for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
        for value in batch.to_pylist():
            number += 1
            yield Row(number, _without_none(value))


def _arrow(file: IO[bytes]) -> Iterator[Row]:
    """What `datasets.Dataset.save_to_disk` writes: the streaming format; the file format has a magic number."""
    import pyarrow

    number = 0
    try:
        batches: Iterable[Any] = pyarrow.ipc.open_stream(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        whole = pyarrow.ipc.open_file(file)
        batches = (whole.get_batch(index) for index in range(whole.num_record_batches))
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield Row(number, _without_none(value))


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    """A column has a cell in every row; null in it is what an absent field is in JSON."""
    return {name: cell for name, cell in value.items() if cell is not None}


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """What decompressors and pyarrow raise for a broken file, as one sentence."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(name, error) from error
    except Exception as error:
        if type(error).__name__ in {"ZstdError", "ArrowInvalid"}:
            raise _damaged(name, error) from error
        raise


def _damaged(name: str, error: Exception) -> StageError:
    return StageError(
        ExitCode.INVALID_DATA,
        f"{name} is damaged or not what its name says ({str(error).splitlines()[0][:200]}): write it again",
    )


def find_files(path: Path, name: str = "") -> list[Path]:
    """A file, or the data files of a directory: one that `datasets.save_to_disk` wrote, or one of Parquet or of JSON
    Lines files.

    Args:
        path: Where it is.
        name: What the user calls it, if that is not the path.

    Raises:
        StageError: INPUT_NOT_READABLE for another directory, INVALID_DATA when it has several splits or kinds of files.
    """
    if not path.is_dir():
        return [path]
    name = name or str(path)
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        if len(splits) != 1:
            raise _several("splits", name, [f"{path.name}/{split}" for split in splits])
        path = path / splits[0]
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [path / entry["filename"] for entry in state["_data_files"]]
    found = _data_files(path) or (_data_files(path / "data") if (path / "data").is_dir() else [])
    kinds = {file.suffix == ".parquet": file.name for file in found}
    if len(kinds) > 1:
        raise _several("kinds of files", name, list(kinds.values()))
    if not found:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"cannot read {name}: it is a directory, and holds neither Parquet nor JSON Lines files nor a saved "
            "Hugging Face dataset: name a file, or a directory of such files",
        )
    words = [re.split(r"[-_.]", file.name)[0] for file in found]
    parts = {word for word, file in zip(words, found, strict=True) if word in _SPLITS or "-of-" in file.name}
    if len(parts) > 1:
        raise _several("splits", name, [f"{part}*" for part in sorted(parts)])
    return found


def _data_files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if _DATA_FILE.search(file.name))


_DATA_FILE = re.compile(r"\.(parquet|jsonl|jsonl\.gz|jsonl\.zst)$")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev", "eval"})


def _several(what: str, name: str, found: list[str]) -> StageError:
    return StageError(
        ExitCode.INVALID_DATA,
        f"{name} holds several {what} ({', '.join(found[:5])}): keep the one to train on in a directory of its own and "
        "name that",
    )
