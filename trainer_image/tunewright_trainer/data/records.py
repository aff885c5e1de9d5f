"""The user's files -> records, or the reasons why not."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_trainer.data.formats import SHAPES, Example, Message, parse_row
from tunewright_trainer.data.rows import (
    BadRecordError,
    Problem,
    Row,
    find_files,
    json_lines,
    parse_json_line,
    read_rows,
)
from tunewright_trainer.errors import StageError, classify

__all__ = ["Message", "Problem", "Record", "invalid_data", "no_records", "parse_line", "parse_lines", "read_records"]

MAX_LISTED = 5


@dataclass(frozen=True)
class Record:
    """What a row says, and its 1-based line in the user's file."""

    line: int
    example: Example

    @property
    def messages(self) -> list[Message]:
        """The conversation; empty for Text."""
        return self.example.messages


def parse_line(raw: bytes, dataset_format: DatasetFormat) -> list[Message]:
    """Check one line of JSON Lines strictly and normalise it to chat messages.

    Raises:
        BadRecordError: Says what is wrong and what to write.
    """
    row = parse_json_line(1, raw)
    if isinstance(row, Problem):
        raise BadRecordError(row.reason, row.rule)
    return parse_row(row.value, dataset_format).messages


def parse_lines(lines: Iterable[bytes], dataset_format: DatasetFormat) -> Iterator[Record | Problem]:
    """Parse each line of JSON Lines that is not blank; numbers start at 1 and count blank lines."""
    return parse_rows(json_lines(lines), dataset_format)


def parse_rows(
    rows: Iterable[Row | Problem], dataset_format: DatasetFormat, ignore: Collection[str] = ()
) -> Iterator[Record | Problem]:
    """Check each row; a Problem says what is wrong with it."""
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        try:
            yield Record(row.line, parse_row(row.value, dataset_format, ignore))
        except BadRecordError as error:
            yield Problem(row.line, str(error), error.rule, row.value)


def iterate_records(
    path: Path, dataset_format: DatasetFormat, ignore: Collection[str] = (), name: str = ""
) -> Iterator[Record | Problem]:
    """The rows of one file, one at a time; `name` is what the user calls it, if that is not the path.

    Raises:
        StageError: INPUT_NOT_READABLE for the file itself, INVALID_DATA for a damaged one.
    """
    try:
        yield from parse_rows(read_rows(path, name), dataset_format, ignore)
    except OSError as error:
        raise classify(error, []) from error


def read_records(path: Path, dataset_format: DatasetFormat) -> list[Record]:
    """Read a small set whole.

    Raises:
        StageError: INVALID_DATA with the first lines that are wrong, INPUT_NOT_READABLE for the file itself.
    """
    results = [result for file in find_files(path) for result in iterate_records(file, dataset_format)]
    problems = [result for result in results if isinstance(result, Problem)]
    if problems:
        raise invalid_data(path, problems)
    if not results:
        raise no_records(path, dataset_format)
    return [result for result in results if isinstance(result, Record)]


def no_records(name: Path | str, dataset_format: DatasetFormat) -> StageError:
    """INVALID_DATA for data without rows."""
    return StageError(
        ExitCode.INVALID_DATA,
        f"{name} has no records: fill it with rows like {SHAPES[dataset_format]}, or name another file",
    )


def invalid_data(name: Path | str, problems: list[Problem], count: int | None = None) -> StageError:
    """INVALID_DATA that lists the first problems by line and counts the rest; `count` if there are more of them."""
    listed = "; ".join(f"line {p.line}: {p.reason}" for p in problems[:MAX_LISTED])
    rest = (count or len(problems)) - len(problems[:MAX_LISTED])
    more = f"; and {rest} more" if rest > 0 else ""
    return StageError(ExitCode.INVALID_DATA, f"{name}: {listed}{more}")
