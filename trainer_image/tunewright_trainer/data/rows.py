"""One file of the user's -> its rows, one at a time: JSON Lines, a JSON array, CSV, Parquet or Arrow; gzip or zstd."""

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
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
_JSON_NAMES = frozenset({".json", ".jsonl"})
_JSON_CELLS = ("messages", "metadata")
_NO_PYTHON_VALUE = (ValueError, OverflowError, LookupError, TypeError, NotImplementedError)
"""What pyarrow raises for a cell that Python cannot hold: bytes that are no UTF-8, a date after the year 9999, …"""


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
    EARLIER_ANSWERS_NOT_LEARNT = "EarlierAnswersNotLearnt"
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


class _UnreadableError(Exception):
    """What is wrong with a file whose rows cannot be told apart, so that no count of them would be right."""


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
                yield from _text_rows(_unpacked(file, head), suffix)


def _unpacked(file: IO[bytes], head: bytes) -> IO[bytes]:
    """The content of a file that may be compressed; `head` are its first bytes."""
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD):
        import pyarrow  # type: ignore[import-untyped]

        # Unlike zstandard's reader it does not take the middle of a frame for the end of the file.
        return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"), _CHUNK)
    return file


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, where each key may stand once."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _repeated("key", [key for key, _ in pairs])
    return value


def _repeated(what: str, names: list[str]) -> BadRecordError:
    ((name, count),) = Counter(names).most_common(1)
    return BadRecordError(f'{what} "{name}" is there {count} times: keep one, or rename it', RowRule.AMBIGUOUS)


_parse = json.JSONDecoder(object_pairs_hook=_unique)
_skip = json.JSONDecoder(parse_int=str).raw_decode
"""Finds the end of a value that `_parse` refuses for what it says."""


def _refusal(error: ValueError) -> tuple[str, RowRule]:
    """Why a value is not taken though it is JSON."""
    if isinstance(error, BadRecordError):
        return str(error), error.rule
    return f"a number has more than {sys.get_int_max_str_digits()} digits: write it as a string", RowRule.NOT_JSON


def parse_json_line(number: int, raw: bytes) -> Row | Problem:
    """One line of JSON Lines."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8"
        return Problem(number, reason, RowRule.NOT_UTF8, raw.decode("utf-8", "replace"))
    rule = RowRule.NOT_JSON
    try:
        return Row(number, _parse.decode(text))
    except json.JSONDecodeError as error:
        reason = f"not valid JSON ({error.msg}, column {error.colno}): write one complete JSON object per line"
    except ValueError as error:
        reason, rule = _refusal(error)
    except RecursionError:
        reason = "nested too deeply: write one flat JSON object per line"
    return Problem(number, reason, rule, text)


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
    head: list[bytes] = []
    first = b""
    while not first and (piece := file.readline(_CHUNK)):
        head.append(piece)
        first = piece.removeprefix(_BOM).strip()
    if suffix == ".json" and first.startswith(b"["):
        yield from _json_array(chain(head, iter(lambda: file.read(_CHUNK), b"")))
        return
    if first in {b"{", b"["}:
        raise _UnreadableError(
            f"line {len(head)}: the JSON does not end where the line does: write one object per line, or an array of "
            "objects, [{…}, {…}], in a file named .json"
        )
    if first and suffix not in _JSON_NAMES and not first.startswith(b"{"):
        raise _UnreadableError(
            "it is none of JSON Lines (one object per line), a JSON array (.json), CSV (.csv), all three plain or with "
            "gzip or zstd, and Parquet (.parquet): convert it, and name it so"
        )
    if head and not head[-1].endswith(b"\n"):
        head[-1] += file.readline()
    yield from json_lines(chain(head, file))


def _json_array(chunks: Iterator[bytes]) -> Iterator[Row | Problem]:
    """The elements of an array without reading it whole.

    Raises:
        _UnreadableError: An element does not end, or is followed by something else than the next one.
    """
    text = _ArrayText(chunks)
    text.peek()
    text.skip()
    expected = "" if text.peek() == "]" else ","
    while expected:
        text.peek()
        yield text.element()
        expected = text.peek()
        if expected not in {",", "]"}:
            found = repr(expected) if expected else "the end of the file"
            raise text.broken(f"found {found} where a comma or ] must be")
        if expected == "]":
            break
        text.skip()
    text.skip()
    if rest := text.peek():
        raise text.broken(f"found {rest!r} after the array")


class _ArrayText:
    """A window on the text of an array: what was read of it and not yet parsed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks: Iterator[bytes] | None = chunks
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
        self._text, self._at, self.line, self._elements = "", 0, 1, 0

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

    def element(self) -> Row | Problem:
        """The element that begins here."""
        self._elements += 1
        parse = _parse.raw_decode
        refused: ValueError | None = None
        while True:
            try:
                value, end = parse(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MAX_ITEM or not self._fill():
                    raise self.broken(f"not valid JSON ({error.msg})") from error
                continue
            except ValueError as error:
                parse, refused = _skip, error
                continue
            except RecursionError as error:
                raise self.broken("nested too deeply") from error
            # A number at the end of the window may go on behind it.
            if end < len(self._text) or not self._fill():
                line, text = self.line, self._text[self._at : end] if refused else ""
                self.line += self._text.count("\n", self._at, end)
                self._at = end
                return Problem(line, *_refusal(refused), text) if refused else Row(line, value)

    def broken(self, what: str) -> _UnreadableError:
        """The array cannot be read from here on."""
        return _UnreadableError(
            f"line {self.line}, element {self._elements} of the array: {what}, so nothing after it can be read: "
            "correct it, or write JSON Lines, where each row stands alone"
        )

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
    """The first line names the columns; a cell that must be a list or an object holds it as JSON.

    Raises:
        _UnreadableError: A quote that is wrong: where the rows after it begin cannot be known.
    """
    csv.field_size_limit(MAX_ITEM)
    text = io.TextIOWrapper(cast("Any", file), encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    start = 1
    try:
        names = next(reader, None)
        if names is None:
            return
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise _UnreadableError("line 1: it must name each column, each name once: correct it")
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
                yield _csv_row(line, dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise _UnreadableError(
            f"line {start}: not valid CSV ({error}), so nothing after it can be read: put double quotes around a cell "
            "with a quote or a line break, and write each quote inside it twice"
        ) from error


def _csv_row(line: int, cells: dict[str, str]) -> Row | Problem:
    value: dict[str, Any] = dict(cells)
    for name in (name for name in _JSON_CELLS if name in cells):
        try:
            value[name] = _parse.decode(cells[name])
        except (json.JSONDecodeError, RecursionError):
            pass  # The format says whether it must be more than a text.
        except ValueError as error:
            reason, rule = _refusal(error)
            return Problem(line, f'column "{name}": {reason}', rule, cells)
    return Row(line, value)


def _has_raw_bytes(cell: str) -> bool:
    """surrogateescape keeps bytes that are not UTF-8 as U+DC80 to U+DCFF."""
    return any("\udc80" <= character <= "\udcff" for character in cell)


def _parquet(file: IO[bytes]) -> Iterator[Row | Problem]:
    from pyarrow import parquet

    content = parquet.ParquetFile(file)
    return _table(content.schema_arrow.names, content.iter_batches(batch_size=_BATCH))


def _arrow(file: IO[bytes]) -> Iterator[Row | Problem]:
    """What `datasets.Dataset.save_to_disk` writes: the streaming format; the file format has a magic number."""
    import pyarrow

    try:
        stream = pyarrow.ipc.open_stream(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        whole = pyarrow.ipc.open_file(file)
        return _table(whole.schema.names, (whole.get_batch(index) for index in range(whole.num_record_batches)))
    return _table(stream.schema.names, stream)


def _table(names: list[str], batches: Iterable[Any]) -> Iterator[Row | Problem]:
    if len(set(names)) < len(names):
        raise _UnreadableError(str(_repeated("column", names)))
    number = 1
    for batch in batches:
        try:
            values = batch.to_pylist()
        except _NO_PYTHON_VALUE:
            yield from (_table_row(batch, index, number + index) for index in range(batch.num_rows))
        else:
            yield from (Row(line, _without_none(value)) for line, value in enumerate(values, start=number))
        number += batch.num_rows


def _table_row(batch: Any, index: int, number: int) -> Row | Problem:
    """One row of a batch of which some cannot be read."""
    value = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value[name] = column[index].as_py()
        except UnicodeDecodeError:
            return Problem(number, f'column "{name}": not UTF-8: write the file again as UTF-8', RowRule.NOT_UTF8)
        except _NO_PYTHON_VALUE as error:
            return Problem(number, f'column "{name}": {_line(error)}: correct the value, or leave the column out')
    return Row(number, _without_none(value))


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    """A column has a cell in every row; null in it is what an absent field is in JSON."""
    return {name: cell for name, cell in value.items() if cell is not None}


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """What decompressors and pyarrow raise for a broken file, as one sentence."""
    try:
        yield
    except _UnreadableError as error:
        raise StageError(ExitCode.INVALID_DATA, f"{name}: {error}") from error
    except (EOFError, UnicodeDecodeError, zlib.error) as error:
        raise _damaged(name, error) from error
    except OSError as error:
        # What the system reports has a number; gzip and pyarrow report a broken content without one.
        if error.errno is None:
            raise _damaged(name, error) from error
        raise
    except Exception as error:
        if type(error).__name__.startswith("Arrow") and not isinstance(error, MemoryError):
            raise _damaged(name, error) from error
        raise


def _damaged(name: str, error: Exception) -> StageError:
    return StageError(
        ExitCode.INVALID_DATA, f"{name} is damaged or not what its name says ({_line(error)}): write it again"
    )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def find_files(path: Path, name: str = "") -> list[Path]:
    """A file, or all data files below a directory, which must be of one kind and one split; of a directory that
    `datasets.save_to_disk` wrote, the files that it lists.

    Args:
        path: Where it is.
        name: What the user calls it, if that is not the path.

    Raises:
        StageError: INPUT_NOT_READABLE for another directory, INVALID_DATA when it has several splits or kinds of files.
    """
    if not path.is_dir():
        return [path]
    name = name or str(path)
    splits = _listed(path / "dataset_dict.json", lambda content: content["splits"], name)
    if len(splits) > 1:
        raise _several("splits", name, [f"{path.name}/{split}" for split in splits])
    path = path.joinpath(*splits)
    saved = _listed(path / "state.json", lambda state: [entry["filename"] for entry in state["_data_files"]], name)
    if saved:
        return [path / file for file in saved]
    found = {str(file.relative_to(path)): kind for file in _tree(path, frozenset()) if (kind := _kind(file))}
    if not found:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"cannot read {name}: it is a directory, and holds neither Parquet, JSON or CSV files nor a saved Hugging "
            "Face dataset: name a file, or a directory of such files",
        )
    kinds = {kind: file for file, kind in reversed(found.items())}
    if len(kinds) > 1:
        raise _several("kinds of files", name, sorted(kinds.values()))
    parts = {part: file for file in reversed(found) if (part := _split_of(file))}
    if len(parts) > 1:
        raise _several("splits", name, sorted(parts.values()))
    return [path / file for file in found]


def _listed(file: Path, listed: Callable[[Any], list[str]], name: str) -> list[str]:
    """What a file that Hugging Face's datasets wrote lists; nothing if there is none."""
    if not file.is_file():
        return []
    try:
        return [str(entry) for entry in listed(json.loads(file.read_bytes()))]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(f"{name}/{file.name}", error) from error


def _tree(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files in and below a directory, in order. What is hidden is left out, and directories that tools keep."""
    above |= {directory.resolve()}
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry
        elif not entry.name.startswith("_") and entry.name != "lost+found" and entry.resolve() not in above:
            yield from _tree(entry, above)


def _kind(file: Path) -> str:
    """What kind of data a name promises; empty for anything else."""
    match = _DATA_FILE.search(file.name)
    if not match:
        return ""
    kind, packed = match[1].lower(), match[2]
    return "" if kind == "json" and not packed and _describes(file) else kind


def _describes(file: Path) -> bool:
    """Whether a .json file holds one object, which is no data but describes it, as dataset_infos.json does."""
    with file.open("rb") as content:
        first, second = content.readline(_CHUNK).strip(), content.readline(_CHUNK).strip()
    return not first.startswith(b"[") and not (first.endswith(b"}") and second)


def _split_of(file: str) -> str:
    """What the path of a file says about the split it belongs to; `NAME-00000-of-00003` belongs to NAME."""
    words = re.findall(r"[A-Z]*[a-z]+|[A-Z]+", file)
    found = {_SPLITS[word.lower()] for word in words if word.lower() in _SPLITS}
    if shard := _SHARD.search(file):
        found.add(shard[1])
    return " ".join(sorted(found))


_DATA_FILE = re.compile(r"\.(jsonl|json|csv|tsv|parquet|arrow)(\.(?:gz|gzip|zst|zstd|bz2|xz|zip))?$", re.IGNORECASE)
_SHARD = re.compile(r"([^/]*)-\d+-of-\d+")
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "eval",
    "evaluation": "eval",
    **dict.fromkeys(["validation", "valid", "val", "dev"], "validation"),
}


def _several(what: str, name: str, found: list[str]) -> StageError:
    return StageError(
        ExitCode.INVALID_DATA,
        f"{name} holds several {what} ({', '.join(found[:5])}): name one file, or keep what is to be trained on in a "
        "directory of its own and name that",
    )
