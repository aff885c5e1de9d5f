"""One JSON line -> chat messages, or the reason why not. Pure but for `read_records`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError, classify, not_readable

Message = dict[str, str]
MAX_LISTED = 5
_ROLES = ("system", "user", "assistant")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """A conversation that ends with the assistant's answer, and its 1-based line in the user's file."""

    line: int
    messages: list[Message]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line, and what to do."""

    line: int
    reason: str


class BadRecordError(ValueError):
    """A line that is not a record; the text is for people."""


def parse_line(raw: bytes, dataset_format: DatasetFormat) -> list[Message]:
    """Check one line strictly and normalise it to chat messages.

    Raises:
        BadRecordError: Says what is wrong and what to write.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecordError(f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecordError(
            f"not valid JSON ({error.msg}, column {error.colno}): write one complete JSON object per line"
        ) from error
    except RecursionError as error:
        raise BadRecordError("nested too deeply: write one flat JSON object per line") from error
    if not isinstance(value, dict):
        raise BadRecordError(f"{_kind(value)} instead of an object: write {_SHAPES[dataset_format]}")
    return _PARSERS[dataset_format](value)


def parse_lines(lines: Iterable[bytes], dataset_format: DatasetFormat) -> Iterator[Record | Problem]:
    """Parse each line that is not blank; numbers start at 1 and count blank lines."""
    for number, raw in enumerate(lines, start=1):
        content = raw.removeprefix(_BOM) if number == 1 else raw
        if not content.strip():
            continue
        try:
            yield Record(number, parse_line(content, dataset_format))
        except BadRecordError as error:
            yield Problem(number, str(error))


def read_records(path: Path, dataset_format: DatasetFormat) -> list[Record]:
    """Read the user's file.

    Raises:
        StageError: INVALID_DATA with the first lines that are wrong, INPUT_NOT_READABLE for the file itself.
    """
    if path.is_dir():
        raise not_readable(path, "it is a directory, not a JSON Lines file")
    try:
        with path.open("rb") as file:
            results = list(parse_lines(file, dataset_format))
    except OSError as error:
        raise classify(error, []) from error
    problems = [result for result in results if isinstance(result, Problem)]
    if problems:
        raise invalid_data(path, problems)
    if not results:
        raise StageError(
            ExitCode.INVALID_DATA, f"{path} has no records: write one JSON object per line, {_SHAPES[dataset_format]}"
        )
    return [result for result in results if isinstance(result, Record)]


def invalid_data(path: Path, problems: list[Problem]) -> StageError:
    """INVALID_DATA that lists the first problems by line and counts the rest."""
    listed = "; ".join(f"line {p.line}: {p.reason}" for p in problems[:MAX_LISTED])
    rest = len(problems) - MAX_LISTED
    more = f"; and {rest} more" if rest > 0 else ""
    return StageError(ExitCode.INVALID_DATA, f"{path}: {listed}{more}")


_SHAPES = {
    DatasetFormat.ALPACA: '{"instruction": "…", "input": "…" (may be absent), "output": "…"}',
    DatasetFormat.CHAT: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    DatasetFormat.PROMPT_COMPLETION: '{"prompt": "…", "completion": "…"}',
}


def _alpaca(value: dict[str, Any]) -> list[Message]:
    instruction = _text(value, "instruction", DatasetFormat.ALPACA)
    answer = _text(value, "output", DatasetFormat.ALPACA)
    extra = ""
    if value.get("input") is not None:
        extra = _text(value, "input", DatasetFormat.ALPACA, may_be_empty=True)
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _prompt_completion(value: dict[str, Any]) -> list[Message]:
    return [
        {"role": "user", "content": _text(value, "prompt", DatasetFormat.PROMPT_COMPLETION)},
        {"role": "assistant", "content": _text(value, "completion", DatasetFormat.PROMPT_COMPLETION)},
    ]


def _chat(value: dict[str, Any]) -> list[Message]:
    messages = value.get("messages")
    if messages is None:
        raise BadRecordError(f'field "messages" is missing: write {_SHAPES[DatasetFormat.CHAT]}')
    if not isinstance(messages, list) or not messages:
        raise BadRecordError('"messages" must be a list with at least a user and an assistant message')
    result: list[Message] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise BadRecordError(f'{where} is {_kind(message)}: write {{"role": "…", "content": "…"}}')
        if message.get("role") not in _ROLES:
            raise BadRecordError(f"{where}.role must be one of system, user and assistant")
        if message["role"] == "system" and index:
            raise BadRecordError(f"{where}: a system message can only be the first one: move it there")
        content = _text(message, "content", DatasetFormat.CHAT, prefix=f"{where}.")
        result.append({"role": message["role"], "content": content})
    if result[-1]["role"] != "assistant":
        raise BadRecordError("the last message must be by the assistant: it is what the model learns to write")
    if all(message["role"] != "user" for message in result):
        raise BadRecordError("there is no user message: add the question that the assistant answers")
    return result


def _text(
    value: dict[str, Any], field: str, shape: DatasetFormat, *, may_be_empty: bool = False, prefix: str = ""
) -> str:
    if field not in value:
        raise BadRecordError(f'field "{prefix}{field}" is missing: write {_SHAPES[shape]}')
    text = value[field]
    if not isinstance(text, str):
        raise BadRecordError(f'"{prefix}{field}" is {_kind(text)} instead of a string: put it in double quotes')
    if not text.strip() and not may_be_empty:
        raise BadRecordError(f'"{prefix}{field}" is empty: fill it in or remove the line')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecordError(
            f'"{prefix}{field}" has half a surrogate pair (\\ud800-\\udfff): write the character itself'
        ) from error
    return text


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return {int: "a number", float: "a number", str: "a string", list: "a list"}.get(type(value), "an object")


_PARSERS = {
    DatasetFormat.ALPACA: _alpaca,
    DatasetFormat.CHAT: _chat,
    DatasetFormat.PROMPT_COMPLETION: _prompt_completion,
}
