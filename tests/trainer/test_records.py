"""Strict reading of the user's file: every refusal names the line and the remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.support import Job
from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_trainer.data.records import Problem, Record, parse_line, parse_lines, read_records
from tunewright_trainer.errors import StageError

GOOD = b'{"instruction": "Say hi", "output": "hi"}'
CHAT, ALPACA, PAIR = DatasetFormat.CHAT, DatasetFormat.ALPACA, DatasetFormat.PROMPT_COMPLETION

WRONG = [
    ("cut JSON", ALPACA, b'{"instruction": "a", "output": "b"', "not valid JSON", "one complete JSON object per line"),
    ("a list", ALPACA, b"[1]", "a list instead of an object", '{"instruction"'),
    ("a number", ALPACA, b"7", "a number instead of an object", "write"),
    ("missing output", ALPACA, b'{"instruction": "a"}', 'field "output" is missing', "write"),
    ("missing instruction", ALPACA, b'{"output": "a"}', 'field "instruction" is missing', "write"),
    ("number as output", ALPACA, b'{"instruction": "a", "output": 3}', '"output" is a number', "double quotes"),
    ("boolean", ALPACA, b'{"instruction": true, "output": "b"}', '"instruction" is a boolean', "double quotes"),
    ("null output", ALPACA, b'{"instruction": "a", "output": null}', '"output" is null', "write the text"),
    ("empty output", ALPACA, b'{"instruction": "a", "output": "  "}', '"output" is empty', "remove the line"),
    ("list as input", ALPACA, b'{"instruction": "a", "input": [], "output": "b"}', '"input" is a list', "string"),
    ("Latin-1", ALPACA, b'{"instruction": "\xe4", "output": "b"}', "not UTF-8 (byte 18)", "save the file as UTF-8"),
    ("half a surrogate", ALPACA, rb'{"instruction": "\ud83d", "output": "b"}', "surrogate", "the character itself"),
    ("deep nesting", ALPACA, b"[" * 200_000, "nested too deeply", "flat"),
    ("missing completion", PAIR, b'{"prompt": "a"}', 'field "completion" is missing', '"completion"'),
    ("no messages", CHAT, b'{"prompt": "a"}', 'field "messages" is missing', '"role"'),
    ("messages that are no JSON in CSV", CHAT, b'{"messages": "[{"}', '"messages" is a string', "in CSV as valid JSON"),
    ("empty messages", CHAT, b'{"messages": []}', '"messages" must be a list', "assistant"),
    ("unknown role", CHAT, b'{"messages": [{"role": "bot", "content": "a"}]}', "messages[0].role", "system, user"),
    ("a string message", CHAT, b'{"messages": ["a"]}', "messages[0] is a string", '"role"'),
    (
        "ends with the user",
        CHAT,
        b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
        "the last message must be by the assistant",
        "learns",
    ),
    (
        "only the assistant",
        CHAT,
        b'{"messages": [{"role": "assistant", "content": "a"}]}',
        "there is no user message",
        "add the question",
    ),
    (
        "late system message",
        CHAT,
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}',
        "messages[1]: a system message can only be the first one",
        "move it",
    ),
    (
        "content is a list",
        CHAT,
        b'{"messages": [{"role": "user", "content": []}]}',
        '"messages[0].content" is a list',
        "string",
    ),
]


@pytest.mark.parametrize(
    ("dataset_format", "line", "what", "remedy"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_line_7_is_named(
    tmp_path: Path, dataset_format: DatasetFormat, line: bytes, what: str, remedy: str
) -> None:
    good = {
        ALPACA: GOOD,
        PAIR: b'{"prompt": "a", "completion": "b"}',
        CHAT: b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
    }[dataset_format]
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\n".join([good] * 6 + [line] + [good]) + b"\n")
    with pytest.raises(StageError) as caught:
        read_records(file, dataset_format)
    assert caught.value.code is ExitCode.INVALID_DATA
    assert f"{file}: line 7: " in caught.value.message
    assert what in caught.value.message
    assert remedy in caught.value.message


def test_five_errors_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\n".join([b"{}"] * 9))
    with pytest.raises(StageError) as caught:
        read_records(file, ALPACA)
    assert "line 5: " in caught.value.message
    assert "line 6: " not in caught.value.message
    assert caught.value.message.endswith("; and 4 more")


def test_blank_lines_count_but_are_no_records() -> None:
    results = list(parse_lines([b"\xef\xbb\xbf" + GOOD, b"\n", b"  \n", b"{"], ALPACA))
    assert [type(result) for result in results] == [Record, Problem]
    assert results[1].line == 4


def test_alpaca_input_joins_the_instruction() -> None:
    line = json.dumps({"instruction": "Sum up", "input": "A text", "output": "Short"}).encode()
    assert parse_line(line, ALPACA)[0]["content"] == "Sum up\n\nA text"


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda value: bool(value.strip()))


@given(prompt=text, answer=text)
def test_whatever_json_can_say_is_read_back(prompt: str, answer: str) -> None:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    assert parse_line(json.dumps({"messages": messages}).encode(), CHAT) == messages
    assert parse_line(json.dumps({"prompt": prompt, "completion": answer}).encode(), PAIR) == messages


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    for result in parse_lines([raw], CHAT):
        assert isinstance(result, Record | Problem)


def test_prepare_says_in_the_termination_message_what_is_wrong(job: Callable[..., Job]) -> None:
    broken = job()
    data = broken.root / "data.jsonl"
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:6], lines[6][:-3], *lines[7:]]))
    finished = broken.run("prepare")
    assert finished.code == ExitCode.INVALID_DATA, finished.describe()
    assert finished.message["reason"] == "InvalidData"
    assert f"{data}: line 7: not valid JSON" in finished.message["message"]
    assert not (broken.work / "dataset").exists()
