"""A row -> a record of the declared format, or the reason why not. Pure.

The fields of a row are held against every format, not only the declared one: a row that reads as two of them, or as
another one, is an error that says so.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tunewright_api.dataset import DatasetFormat
from tunewright_trainer.data.rows import BadRecordError, RowRule

Message = dict[str, str]
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """What a row says.

    Attributes:
        messages: A conversation that ends with the assistant's answer; empty for Text.
        rejected: The worse answer to the same prompt; only of Preference.
        text: All of it is learnt; only of Text.
        unlearnt: Numbers of the messages with weight 0: answers that are read and not learnt.
    """

    messages: list[Message]
    rejected: str | None = None
    text: str | None = None
    unlearnt: tuple[int, ...] = ()


def parse_row(value: Any, dataset_format: DatasetFormat, ignore: Collection[str] = ()) -> Example:
    """Check a row strictly and normalise it.

    Args:
        value: What JSON, CSV or Parquet said.
        dataset_format: The declared one.
        ignore: Fields that do not count; of messages those that would be refused, and weight.

    Raises:
        BadRecordError: Says what is wrong and what to write.
    """
    if not isinstance(value, dict):
        raise BadRecordError(f"{_kind(value)} instead of an object: write {SHAPES[dataset_format]}")
    if ignore:
        value = {name: _without(content, ignore) for name, content in value.items() if name not in ignore}
    fitting = [candidate for candidate, fields in _FIELDS.items() if all(field in value for field in fields)]
    if dataset_format in fitting:
        others = [other for other in fitting if other is not dataset_format]
        if others:
            raise BadRecordError(
                f"it reads as {_reading(dataset_format)} and as {_reading(others[0])}: remove the fields of one, or "
                "name them in dataset.ignoreFields",
                RowRule.AMBIGUOUS,
            )
    elif fitting:
        (looks, *_) = fitting
        raise BadRecordError(
            f"{_missing(value, dataset_format)}; it reads as {_reading(looks)}: write format: {looks.value}, or "
            f"{SHAPES[dataset_format]}"
        )
    if dataset_format in fitting and dataset_format is not DatasetFormat.TEXT:
        _refuse_unread(value, _UNREAD)
    return _PARSERS[dataset_format](value)


SHAPES = {
    DatasetFormat.ALPACA: '{"instruction": "…", "input": "…" (may be absent), "output": "…"}',
    DatasetFormat.CHAT: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    DatasetFormat.PROMPT_COMPLETION: '{"prompt": "…", "completion": "…"}',
    DatasetFormat.TEXT: '{"text": "…"}',
    DatasetFormat.INPUT_TARGET: '{"input": "…", "target": "…", "metadata": {…} (may be absent)}',
    DatasetFormat.PREFERENCE: '{"prompt": "…", "chosen": "…", "rejected": "…"}',
}
"""What a row of each format looks like."""

_FIELDS = {
    DatasetFormat.ALPACA: ("instruction", "output"),
    DatasetFormat.CHAT: ("messages",),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetFormat.TEXT: ("text",),
    DatasetFormat.INPUT_TARGET: ("input", "target"),
    DatasetFormat.PREFERENCE: ("prompt", "chosen", "rejected"),
}


_NO_TOOLS = "tool calls are not supported, remove the row"
_UNREAD = {
    **dict.fromkeys(["tools", "functions"], _NO_TOOLS),
    "system": "write it as the first message of a row of format Chat",
    "history": "write it as messages of a row of format Chat",
}
"""Fields that change what a row says and are not read, and what to do."""
_UNREAD_OF_MESSAGE = {
    **dict.fromkeys(["tool_calls", "function_call"], _NO_TOOLS),
    **dict.fromkeys(["reasoning_content", "reasoning", "thinking"], "write it into content, as the model shall say it"),
}


def _without(content: Any, ignore: Collection[str]) -> Any:
    """A list of messages without the fields that do not count."""
    ignored = {name for name in (*_UNREAD_OF_MESSAGE, "weight") if name in ignore}
    if not ignored or not isinstance(content, list):
        return content
    return [
        {name: value for name, value in part.items() if name not in ignored} if isinstance(part, dict) else part
        for part in content
    ]


def _refuse_unread(value: dict[str, Any], unread: dict[str, str], prefix: str = "") -> None:
    for name, remedy in unread.items():
        if value.get(name):
            raise BadRecordError(
                f'"{prefix}{name}" says something that would be lost: {remedy}, or name {name} in dataset.ignoreFields'
            )


def _reading(dataset_format: DatasetFormat) -> str:
    return f"{dataset_format.value} ({', '.join(_FIELDS[dataset_format])})"


def _missing(value: dict[str, Any], dataset_format: DatasetFormat) -> str:
    missing = next(field for field in _FIELDS[dataset_format] if field not in value)
    return f'field "{missing}" is missing'


def _alpaca(value: dict[str, Any]) -> Example:
    instruction = _text(value, "instruction", DatasetFormat.ALPACA)
    answer = _text(value, "output", DatasetFormat.ALPACA)
    extra = ""
    if value.get("input") is not None:
        extra = _text(value, "input", DatasetFormat.ALPACA, may_be_empty=True)
    return _pair(f"{instruction}\n\n{extra}" if extra.strip() else instruction, answer)


def _prompt_completion(value: dict[str, Any]) -> Example:
    return _pair(
        _text(value, "prompt", DatasetFormat.PROMPT_COMPLETION),
        _text(value, "completion", DatasetFormat.PROMPT_COMPLETION),
    )


def _input_target(value: dict[str, Any]) -> Example:
    if not isinstance(value.get("metadata", {}), dict):
        raise BadRecordError(f'"metadata" is {_kind(value["metadata"])} instead of an object: write {{…}} or leave it')
    return _pair(_text(value, "input", DatasetFormat.INPUT_TARGET), _text(value, "target", DatasetFormat.INPUT_TARGET))


def _plain_text(value: dict[str, Any]) -> Example:
    return Example([], text=_text(value, "text", DatasetFormat.TEXT))


def _preference(value: dict[str, Any]) -> Example:
    chosen = _text(value, "chosen", DatasetFormat.PREFERENCE)
    rejected = _text(value, "rejected", DatasetFormat.PREFERENCE)
    if chosen == rejected:
        raise BadRecordError('"chosen" and "rejected" are the same: there is nothing to prefer, remove the row')
    if isinstance(value.get("prompt"), list):
        messages = _conversation(value["prompt"], "prompt")
        if messages[-1]["role"] != "user":
            raise BadRecordError("the last message of prompt must be by the user: chosen and rejected answer it")
    else:
        messages = [{"role": "user", "content": _text(value, "prompt", DatasetFormat.PREFERENCE)}]
    return Example([*messages, {"role": "assistant", "content": chosen}], rejected=rejected)


def _chat(value: dict[str, Any]) -> Example:
    messages = value.get("messages")
    if messages is None:
        raise BadRecordError(f'field "messages" is missing: write {SHAPES[DatasetFormat.CHAT]}')
    if isinstance(messages, str):
        raise BadRecordError('"messages" is a string instead of a list: write [{"role": …}, …] (in CSV as valid JSON)')
    if not isinstance(messages, list) or not messages:
        raise BadRecordError('"messages" must be a list with at least a user and an assistant message')
    result = _conversation(messages, "messages")
    if result[-1]["role"] != "assistant":
        raise BadRecordError("the last message must be by the assistant: it is what the model learns to write")
    if all(message["role"] != "user" for message in result):
        raise BadRecordError("there is no user message: add the question that the assistant answers")
    return Example(result, unlearnt=_unlearnt(messages))


def _unlearnt(messages: list[dict[str, Any]]) -> tuple[int, ...]:
    """The answers with weight 0, as OpenAI's format marks what is not to be learnt."""
    answers = [
        (index, message.get("weight")) for index, message in enumerate(messages) if message["role"] == "assistant"
    ]
    for index, weight in answers:
        if weight not in (None, 0, 1):
            raise BadRecordError(f"messages[{index}].weight must be 0 (not learnt) or 1")
    if answers[-1][1] == 0:
        raise BadRecordError("the last message has weight 0: end the row with the last answer that is to be learnt")
    return tuple(index for index, weight in answers if weight == 0)


def _conversation(messages: list[Any], field: str) -> list[Message]:
    if not messages:
        raise BadRecordError(f'"{field}" is an empty list: write at least a user message')
    result: list[Message] = []
    for index, message in enumerate(messages):
        where = f"{field}[{index}]"
        if not isinstance(message, dict):
            raise BadRecordError(f'{where} is {_kind(message)}: write {{"role": "…", "content": "…"}}')
        _refuse_unread(message, _UNREAD_OF_MESSAGE, f"{where}.")
        if message.get("role") in ("tool", "function"):
            raise BadRecordError(f"{where} is by a {message['role']}: {_NO_TOOLS}")
        if message.get("role") not in _ROLES:
            raise BadRecordError(f"{where}.role must be one of system, user and assistant")
        if message["role"] == "system" and index:
            raise BadRecordError(f"{where}: a system message can only be the first one: move it there")
        content = _text(message, "content", DatasetFormat.CHAT, prefix=f"{where}.")
        result.append({"role": message["role"], "content": content})
    return result


def _pair(prompt: str, answer: str) -> Example:
    return Example([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])


def _text(
    value: dict[str, Any], field: str, shape: DatasetFormat, *, may_be_empty: bool = False, prefix: str = ""
) -> str:
    if field not in value:
        raise BadRecordError(f'field "{prefix}{field}" is missing: write {SHAPES[shape]}')
    text = value[field]
    if not isinstance(text, str):
        raise BadRecordError(f'"{prefix}{field}" is {_kind(text)} instead of a string: {_as_string(text, prefix)}')
    if not text.strip() and not may_be_empty:
        raise BadRecordError(f'"{prefix}{field}" is empty: fill it in or remove the line')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecordError(
            f'"{prefix}{field}" has half a surrogate pair (\\ud800-\\udfff): write the character itself'
        ) from error
    return text


def _as_string(value: Any, prefix: str) -> str:
    """What to do where a string must be."""
    if value is None:
        return "write the text, or remove the row"
    if isinstance(value, bool | int | float):
        return "put it in double quotes"
    if prefix:
        return "put the text of its parts together; images and sounds cannot be learnt"
    return "write only the text; messages before an answer belong into prompt, or into a row of format Chat"


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
    DatasetFormat.TEXT: _plain_text,
    DatasetFormat.INPUT_TARGET: _input_target,
    DatasetFormat.PREFERENCE: _preference,
}
