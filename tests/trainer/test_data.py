"""Every kind of file and format, the account of its rows, the order of a mixture, and packed rows."""

import csv
import gzip
import json
import random
import re
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.support import CHATML
from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import DatasetInput
from tunewright_trainer.data import store
from tunewright_trainer.data.account import Fate
from tunewright_trainer.data.build import TRAIN, VALIDATION, Built, build_dataset
from tunewright_trainer.data.chat import ChatTemplate
from tunewright_trainer.data.formats import Example, parse_row
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.order import LengthGroupedOrder, MixtureOrder
from tunewright_trainer.data.packing import pack
from tunewright_trainer.data.rows import BadRecordError, Problem, Row, RowRule, find_files, read_rows
from tunewright_trainer.data.split import DataOrder
from tunewright_trainer.data.tokens import Encoded, divide, load_encoder
from tunewright_trainer.errors import StageError

ROWS = [{"prompt": f"Frage {n}?", "completion": f'Ja,\n"{n}" ü'} for n in range(7)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the form that the name asks for."""
    import pyarrow  # type: ignore[import-untyped]
    import zstandard
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if name.endswith(".json"):
        text = json.dumps(rows, indent=1, ensure_ascii=False)
    elif name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        text = path.read_text(encoding="utf-8")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.json",
        "a.csv",
        "a.parquet",
        "a.jsonl.gz",
        "a.json.zst",
        "a.csv.gz",
        "set/data/train-0-of-1.parquet",
    ],
)
def test_every_kind_of_file_says_the_same(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ROWS)
    (file,) = find_files(tmp_path / "set" if name.startswith("set") else path)
    assert [row.value for row in read_rows(file) if isinstance(row, Row)] == ROWS


def test_a_dataset_that_hugging_face_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stage that ran in this process may have kept others from importing it.
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    for name in ("one", "splits"):
        rows = [row for file in find_files(tmp_path / name) for row in read_rows(file)]
        assert rows == [Row(number, value) for number, value in enumerate(ROWS, start=1)]
    two = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS)}
    datasets.DatasetDict(two).save_to_disk(tmp_path / "two")
    with pytest.raises(StageError, match=r"several splits \(two/train, two/test\)"):
        find_files(tmp_path / "two")


@pytest.mark.parametrize(
    ("names", "want"),
    [
        pytest.param(["a.jsonl", "b.jsonl.gz", "readme.md"], ["a.jsonl", "b.jsonl.gz"], id="JSON Lines"),
        pytest.param(["data/x.parquet", "info.json"], ["data/x.parquet"], id="as the Hugging Face hub lays it out"),
        pytest.param(["a.jsonl", "b/c.jsonl", "data/d.jsonl.gzip"], None, id="all below it"),
        pytest.param(["A.JSONL", "b.Jsonl.GZ"], None, id="capitals"),
        pytest.param(["a.csv", "b.csv"], None, id="CSV"),
        pytest.param(["a.jsonl", "._a.jsonl", ".trash/b.csv", "_delta_log/c.parquet"], ["a.jsonl"], id="hidden files"),
        pytest.param(["contest.jsonl", "latest.jsonl", "train.jsonl"], None, id="words that hold the name of a split"),
        pytest.param(["train/a.jsonl", "train/b.jsonl"], None, id="a split alone"),
        pytest.param(["a.jsonl", "b.parquet"], r"several kinds of files \(a.jsonl, b.parquet\): name", id="two kinds"),
        pytest.param(
            ["a.jsonl", "b.csv", "c.json.gz", "d/e.jsonl", "f.tsv"],
            r"several kinds of files \(a.jsonl, b.csv, c.json.gz, f.tsv\): name one file",
            id="four kinds",
        ),
        pytest.param(
            ["train.jsonl", "test.jsonl"], r"several splits \(test.jsonl, train.jsonl\)", id="a test set in it"
        ),
        pytest.param(["training.jsonl", "testing.jsonl"], "several splits", id="training and testing"),
        pytest.param(["my_train.jsonl", "my_test_2.jsonl"], "several splits", id="the split behind another word"),
        pytest.param(["train/a.jsonl", "Test/a.jsonl"], "several splits", id="a directory for each split"),
        pytest.param(
            ["train_sft-0-of-1.parquet", "train_gen-0-of-1.parquet"], "several splits", id="splits of the hub"
        ),
        pytest.param(["readme.txt", "info.json"], "neither Parquet, JSON or CSV", id="nothing that is read"),
    ],
)
def test_the_files_of_a_directory(names: list[str], want: list[str] | str | None, tmp_path: Path) -> None:
    """`want` is what is read, None for all of it, or what is wrong."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if isinstance(want, str):
        with pytest.raises(StageError, match=want):
            find_files(tmp_path)
    else:
        assert [str(file.relative_to(tmp_path)) for file in find_files(tmp_path)] == (names if want is None else want)


@pytest.mark.parametrize(
    ("content", "is_data"),
    [
        pytest.param('{"splits": {}}\n', False, id="one object"),
        pytest.param('{\n "splits": {}\n}\n', False, id="one object over several lines"),
        pytest.param('[\n{"text": "a"}]', True, id="an array"),
        pytest.param('{"text": "a"}\n{"text": "b"}\n', True, id="JSON Lines"),
    ],
)
def test_a_json_file_beside_others_is_data_or_describes_them(content: str, is_data: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ROWS)
    (tmp_path / "b.json").write_text(content)
    if is_data:
        with pytest.raises(StageError, match=r"several kinds of files \(a.parquet, b.json\)"):
            find_files(tmp_path)
    else:
        assert find_files(tmp_path) == [tmp_path / "a.parquet"]


def test_a_directory_that_is_linked_into_itself_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.jsonl", ROWS)
    (tmp_path / "set" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "linked").symlink_to(tmp_path / "set")
    assert find_files(tmp_path / "linked") == [tmp_path / "linked" / "a.jsonl"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", "7", '{"_data_files": [{}]}', '{"_data_files": 1}', "\xff"])
@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
def test_a_saved_dataset_whose_list_of_files_is_broken(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(StageError, match=rf"{name} is damaged or not what its name says .*: write it again") as caught:
        find_files(tmp_path)
    assert caught.value.code is ExitCode.INVALID_DATA


def test_a_wrong_row_keeps_its_line_in_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\n"a\nb",c\nonly one\nd,e\n')
    first, second, third = read_rows(tmp_path / "a.csv")
    assert (first.line, second.line, third.line) == (2, 4, 5)
    assert isinstance(second, Problem)
    assert second.rule is RowRule.NOT_CSV


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab]},\\"'), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(json_values, max_size=8), indent=st.sampled_from([None, 1]))
def test_an_array_is_read_element_by_element(tmp_path: Path, values: list[Any], indent: int | None) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps(values, indent=indent))
    assert [row.value for row in read_rows(path) if isinstance(row, Row)] == values


MANY = [{"prompt": f"{random.Random(number).random()}", "completion": "a"} for number in range(2000)]


@pytest.mark.parametrize("damage", ["cut", "cut in the last of two frames", "garbage behind it"])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_damaged_archive_is_named(kind: str, suffix: str, damage: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{kind}.{suffix}", MANY)
    whole = path.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "cut in the last of two frames": whole + whole[:-12],
        "garbage behind it": whole + b"garbage",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(StageError, match=rf"a\.{kind}\.{suffix}(: line \d+| is damaged)") as caught:
        list(read_rows(path))
    assert caught.value.code is ExitCode.INVALID_DATA


def test_an_archive_may_have_several_frames(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        path = write(tmp_path / name, ROWS)
        path.write_bytes(path.read_bytes() * 2)
        assert [row.value for row in read_rows(path) if isinstance(row, Row)] == ROWS * 2


def said(path: Path) -> list[Row | str]:
    """Each right row, and of each wrong one the line and what is said about it; at last what is wrong with the file."""
    found: list[Row | str] = []
    try:
        for row in read_rows(path):
            found.append(f"line {row.line}: {row.reason}" if isinstance(row, Problem) else row)
    except StageError as error:
        found.append(f"{error.code.name} {error.message}")
    return found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param(
            "a.csv",
            'text\nhello\n"q"x\nlost\n',
            r"a\.csv: line 3: not valid CSV .*nothing after it can be read: put double quotes",
            id="a quote inside a cell",
        ),
        pytest.param("a.csv", 'text\nhello\n"open\nlost\n', "line 3: not valid CSV", id="a quote that never ends"),
        pytest.param("a.csv", "text,text\nhello,b\n", "line 1: it must name each column", id="a column twice"),
        pytest.param(
            "a.json",
            '[{"text": "hello"},\n\n{"text": },\n{"text": "lost"}]',
            r"a\.json: line 3, element 2 of the array: not valid JSON \(.*\), so nothing after it can be read: ",
            id="an element of an array",
        ),
        pytest.param("a.json", '[{"text": "hello"} {"text": "lost"}]', "where a comma or ] must be", id="no comma"),
        pytest.param("a.json", '[{"text": "hello"},\n', "not valid JSON", id="an array that never ends"),
        pytest.param("a.json", '[{"text": "hello"}]\n[{"text": "lost"}]', "after the array", id="two arrays"),
        pytest.param("a.json", '[{"text": "hello"},\n' + "[" * 200_000, "nested too deeply", id="deep nesting"),
        pytest.param(
            "a.json",
            json.dumps(ROWS[0], indent=1),
            r"line 1: the JSON does not end .*array",
            id="a pretty-printed object",
        ),
        pytest.param(
            "a.jsonl", json.dumps(ROWS, indent=1), r"array of objects, .* named \.json", id="an array as .jsonl"
        ),
        pytest.param("a.tsv", "text\nhello\n", r"a\.tsv: it is none of .*CSV.*: convert it, and name it so", id="TSV"),
        pytest.param("a.txt", "hello\n", r"a\.txt: it is none of JSON Lines", id="plain text"),
        pytest.param("a.jsonl.bz2", "BZh91AY", "it is none of .* gzip or zstd", id="another archive"),
    ],
)
def test_a_file_whose_rows_cannot_be_counted_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    *before, message = said(tmp_path / name)
    assert all(isinstance(row, Row) and row.value == {"text": "hello"} for row in before)
    assert isinstance(message, str)
    assert re.match(rf"INVALID_DATA .*{words}", message)


DIGITS = "1" * 5000
TWICE = '{"text": "a", "text": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param(
            "a.jsonl", f'{{"text": {DIGITS}}}\n{{"text": "right"}}\n', "4300 digits", id="digits in JSON Lines"
        ),
        pytest.param("a.json", f'[{{"text": {DIGITS}}}, {{"text": "right"}}]', "4300 digits", id="digits in an array"),
        pytest.param("a.csv", f'messages\n[{DIGITS}]\n"[]"\n', 'column "messages": .*digits', id="digits in CSV"),
        pytest.param(
            "a.jsonl", f'{TWICE}\n{{"text": "right"}}\n', 'key "text" is there 2 times: keep one', id="a key twice"
        ),
        pytest.param(
            "a.json", f'[{TWICE}, {{"text": "right"}}]', 'key "text" is there 2 times', id="twice in an array"
        ),
        pytest.param("a.json", f'[[{{}}, {TWICE}], {{"text": "right"}}]', 'key "text"', id="twice inside"),
        pytest.param(
            "a.csv", 'messages\n"{""a"": 1, ""a"": 2}"\n[]\n', 'column "messages": key "a" is there', id="twice in CSV"
        ),
    ],
)
def test_a_row_that_cannot_be_taken_leaves_the_next_ones(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    wrong, right = read_rows(tmp_path / name)
    assert isinstance(wrong, Problem)
    assert re.search(words, wrong.reason)
    assert wrong.row
    assert isinstance(right, Row)
    assert right.value in ({"text": "right"}, {"messages": []})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_cell_of_a_table_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    latin = pyarrow.Array.from_buffers(pyarrow.string(), 3, pyarrow.array([b"a", b"\xff", b"c"]).buffers())
    late = pyarrow.array([0, 0, 2**62], pyarrow.timestamp("us"))
    table = pyarrow.table({"text": latin, "date": late})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    assert said(path) == [
        Row(1, {"text": "a", "date": datetime(1970, 1, 1)}),
        'line 2: column "text": not UTF-8: write the file again as UTF-8',
        'line 3: column "date": date value out of range: correct the value, or leave the column out',
    ]


def test_a_column_that_a_table_has_twice(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["prompt", "text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert said(tmp_path / "a.parquet") == [
        f'INVALID_DATA {tmp_path}/a.parquet: column "text" is there 2 times: keep one, or rename it'
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a.arrow"]),
    head=st.sampled_from([b"", b"[", b'[{"a": 1}', b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"ARROW1\0\0"]),
    content=st.binary(max_size=100) | st.text('[]{},:"a1\n ').map(str.encode),
)
def test_no_file_crashes_the_reader(tmp_path: Path, name: str, head: bytes, content: bytes) -> None:
    (tmp_path / name).write_bytes(head + content)
    assert all(isinstance(row, Row) or row.startswith(("line ", "INVALID_DATA ")) for row in said(tmp_path / name))


def test_the_formats() -> None:
    answer = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert parse_row({"input": "q", "target": "a", "metadata": {"x": 1}}, DatasetFormat.INPUT_TARGET) == Example(answer)
    assert parse_row({"text": "t"}, DatasetFormat.TEXT) == Example([], text="t")
    pair = parse_row({"prompt": "q", "chosen": "a", "rejected": "b"}, DatasetFormat.PREFERENCE)
    assert pair == Example(answer, rejected="b")


@pytest.mark.parametrize(
    ("row", "declared", "words"),
    [
        pytest.param(
            {"instruction": "a", "output": "b", "text": "c"},
            DatasetFormat.ALPACA,
            r"reads as Alpaca \(instruction, output\) and as Text \(text\).*ignoreFields",
            id="two readings",
        ),
        pytest.param(
            {"input": "a", "target": "b"},
            DatasetFormat.ALPACA,
            "it reads as InputTarget.*format: InputTarget",
            id="other",
        ),
        pytest.param(
            {"prompt": "a", "chosen": "b", "rejected": "b"}, DatasetFormat.PREFERENCE, "nothing to prefer", id="a tie"
        ),
        pytest.param(
            {"input": "a", "target": "b", "metadata": 1}, DatasetFormat.INPUT_TARGET, "metadata", id="metadata"
        ),
    ],
)
def test_the_declared_format_is_held_against_the_content(
    row: dict[str, Any], declared: DatasetFormat, words: str
) -> None:
    with pytest.raises(BadRecordError, match=words):
        parse_row(row, declared)


def test_a_field_that_is_ignored_makes_no_second_reading() -> None:
    row = {"instruction": "a", "output": "b", "text": "c"}
    assert parse_row(row, DatasetFormat.ALPACA, ["text"]).messages[1]["content"] == "b"


# --- the account ------------------------------------------------------------------------------


SEQUENCE_LENGTH = 64


def build(directory: Path, model: Path, lines: list[str], **rules: Any) -> Built:
    directory.mkdir(parents=True)
    (directory / "data.jsonl").write_text("\n".join(lines))
    dataset = DatasetInput.model_validate(
        {"path": str(directory / "data.jsonl"), "format": "PromptCompletion", "validationPercent": 20, **rules}
    )
    out = directory / "out"
    out.mkdir()
    sources = locate(dataset, directory / "scratch")
    return build_dataset(dataset, sources, load_encoder(model), out, sequence_length=SEQUENCE_LENGTH, seed=1)


def line(prompt: str, completion: str) -> str:
    return json.dumps({"prompt": prompt, "completion": completion})


WRONG = ["{", "[]", '{"prompt": "a"}', '{"prompt": "a", "completion": ""}']
kinds = st.lists(
    st.sampled_from(["wrong", "long", "copy"]) | st.integers(0, 30).map(lambda number: f"row {number}"), max_size=20
)


@settings(max_examples=12, deadline=None)
@given(
    rows=kinds,
    on_long=st.sampled_from(["Truncate", "Drop"]),
    on_duplicate=st.sampled_from(["Keep", "Drop"]),
)
def test_the_account_adds_up(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows: list[str], on_long: str, on_duplicate: str
) -> None:
    lines = [line("first", "1"), line("second", "2")]
    for number, row in enumerate(rows):
        content = {
            "wrong": WRONG[number % len(WRONG)],
            "long": line("a", f"{number} " * 60),
            "copy": line("FIRST ", "1"),
        }
        lines.append(content.get(row, line(row, "same")))
    directory = tmp_path_factory.mktemp("account") / "set"
    rules = {"onBadRow": "Quarantine", "onLongRecord": on_long, "onDuplicate": on_duplicate}
    built = build(directory, tiny_model, lines, **rules)
    account = built.account
    left_out = account.total(Fate.DROPPED) + account.total(Fate.QUARANTINED)
    assert account.read == len(lines)
    assert account.read == account.unchanged + account.total(Fate.FIXED) + left_out
    assert account.unchanged + account.total(Fate.FIXED) == account.train + account.held_out
    assert account.total(Fate.QUARANTINED) == rows.count("wrong")
    out = directory / "out"
    train, validation = store.read(out / TRAIN), store.read(out / VALIDATION)
    assert (len(train), len(validation)) == (account.train, account.held_out)
    noted = [json.loads(entry) for entry in (out / "rows.jsonl").read_text().splitlines()]
    assert len(noted) == left_out + account.total(Fate.FIXED)
    kept = Counter(record.line for part in (train, validation) for record in part)
    lost = Counter(entry["line"] for entry in noted if entry["fate"] != "fixed")
    assert kept + lost == Counter(range(1, len(lines) + 1))


def test_each_row_that_is_not_unchanged_is_named_with_rule_and_line(tmp_path: Path, tiny_model: Path) -> None:
    lines = [line("a", "1"), line("b", "2"), "{", line("A", "1"), line("c", "x" * 80)]
    built = build(tmp_path / "set", tiny_model, lines, onBadRow="Quarantine", onDuplicate="Drop")
    assert [(note.line, note.fate, note.rule) for note in built.notes] == [
        (3, Fate.QUARANTINED, RowRule.NOT_JSON),
        (4, Fate.DROPPED, RowRule.DUPLICATE),
        (5, Fate.FIXED, RowRule.TRUNCATED),
    ]
    content = json.loads((tmp_path / "set" / "out" / "account.json").read_text())
    assert content["dropped"] == {"Duplicate": 1}
    with pytest.raises(StageError, match=r"line 3: not valid JSON") as caught:
        build(tmp_path / "strict", tiny_model, lines)
    assert caught.value.code is ExitCode.INVALID_DATA


# --- documents that are divided ---------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    documents=st.lists(st.text("abc ü🙂", min_size=1, max_size=200).filter(str.strip), min_size=2, max_size=8),
    on_duplicate=st.sampled_from(["Keep", "Drop"]),
)
def test_the_pieces_of_a_document_put_together_are_the_document(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, documents: list[str], on_duplicate: str
) -> None:
    documents = ["first", "the second", *documents]
    directory = tmp_path_factory.mktemp("split") / "set"
    lines = [json.dumps({"text": text}) for text in documents]
    built = build(directory, tiny_model, lines, format="Text", onDuplicate=on_duplicate)
    sides = [store.read(directory / "out" / name) for name in (TRAIN, VALIDATION)]
    # Pieces of a document are on one side, in their order.
    numbers = [{record.line for record in side} for side in sides]
    assert not numbers[0] & numbers[1]
    together: dict[int, list[int]] = {}
    for record in (record for side in sides for record in side):
        assert record.spans == [(0, len(record.ids))]
        assert len(record.ids) <= SEQUENCE_LENGTH
        together.setdefault(record.line, []).extend(record.ids)
    encoder = load_encoder(tiny_model)
    assert together == {line: encoder.encode_text(documents[line - 1], 10**9).ids for line in numbers[0] | numbers[1]}
    account = built.account
    split = account.counts[Fate.FIXED, RowRule.SPLIT]
    assert account.read == len(documents) == account.train + account.held_out + account.total(Fate.DROPPED)
    assert (account.train, account.held_out) == (len(numbers[0]), len(numbers[1]))
    assert split == sum(len(ids) > SEQUENCE_LENGTH for ids in together.values())
    assert sum(map(len, sides)) == account.train + account.held_out - split + account.pieces


@given(length=st.integers(1, 3000), sequence_length=st.integers(16, 300))
def test_a_document_becomes_as_few_pieces_as_hold_it_of_about_one_length(length: int, sequence_length: int) -> None:
    sizes = [len(piece.ids) for piece in divide(Encoded(list(range(length)), [(0, length)], False), sequence_length)]
    assert len(sizes) == -(-length // sequence_length)
    assert max(sizes) <= sequence_length
    assert max(sizes) - min(sizes) <= 1


def test_a_document_that_is_divided_is_named_with_its_pieces(tmp_path: Path, tiny_model: Path) -> None:
    lines = [json.dumps({"text": text}) for text in ("short", "x" * 200, "other")]
    built = build(tmp_path / "set", tiny_model, lines, format="Text")
    path = tmp_path / "set" / "data.jsonl"
    assert [note.text() for note in built.notes] == [
        f"{path}: line 2: fixed (Split): divided into 4 pieces of at most sequenceLength (64 tokens)"
    ]
    assert built.account.to_dict() == {
        "read": 3,
        "unchanged": 2,
        "fixed": {"Split": 1},
        "dropped": {},
        "quarantined": {},
        "train": 2,
        "heldOut": 1,
        "pieces": 4,
    }


@pytest.mark.parametrize(
    ("on_long", "fates"),
    [
        ("Truncate", [("fixed", "Truncated")]),
        ("Drop", [("dropped", "TooLong")]),
        ("Fail", [("quarantined", "TooLong")]),
    ],
)
def test_a_long_document_that_is_not_to_be_divided(
    tmp_path: Path, tiny_model: Path, on_long: str, fates: list[tuple[str, str]]
) -> None:
    lines = [json.dumps({"text": text}) for text in ("short", "x" * 200, "other")]
    rules = {"format": "Text", "onLongRecord": on_long, "onBadRow": "Quarantine"}
    built = build(tmp_path / "set", tiny_model, lines, **rules)
    assert [(note.fate, note.rule) for note in built.notes] == fates
    assert max(store.read(tmp_path / "set" / "out" / TRAIN).lengths) <= SEQUENCE_LENGTH


# --- order and packing ------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    start=st.integers(0, 60),
    data=st.data(),
)
def test_a_mixture_has_exact_shares_in_every_period_and_resumes_anywhere(
    sizes: list[int], seed: int, start: int, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    order = MixtureOrder(sizes, weights, seed)
    period = sum(weights)
    part = np.repeat(np.arange(len(sizes)), sizes)
    seen = [order[position] for position in range(6 * period)]
    for first in range(0, 6 * period, period):
        assert np.bincount(part[seen[first : first + period]], minlength=len(sizes)).tolist() == weights
    again = MixtureOrder(sizes, weights, seed)
    assert [again[position] for position in range(start, 6 * period)] == seen[start:]
    for number, size in enumerate(sizes):
        of_part = [record for record in seen if part[record] == number]
        assert all(len(set(of_part[at : at + size])) == size for at in range(0, len(of_part) - size + 1, size))


@given(records=st.integers(1, 40), batch=st.integers(1, 4), steps=st.integers(1, 120), seed=st.integers(0, 9))
def test_grouping_by_length_trains_the_same_records(records: int, batch: int, steps: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, records)
    positions = steps * batch
    plain, grouped = DataOrder(records, seed), None
    grouped = LengthGroupedOrder(plain, lengths, batch, positions, seed)
    size = LengthGroupedOrder.WINDOW * batch
    for first in range(0, positions, size):
        window = range(first, min(first + size, positions))
        assert Counter(grouped[p] for p in window) == Counter(plain[p] for p in window)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), room=st.integers(0, 50))
def test_packing_neither_splits_nor_loses_a_record(lengths: list[int], room: int) -> None:
    capacity = max(lengths) + room
    rows = pack(lengths, capacity)
    assert sorted(record for row in rows for record in row) == list(range(len(lengths)))
    assert all(sum(lengths[record] for record in row) <= capacity for row in rows)
    assert rows == pack(lengths, capacity)


def test_packed_records_have_the_loss_that_they_have_alone(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from tunewright_trainer.batches import Packing, make_batch
    from tunewright_trainer.objectives.supervised import Supervised

    encoder = load_encoder(tiny_model)
    records = [
        store.prepared(n, turns, encoder.encode(turns, 200))
        for n, turns in enumerate(parse_row(row, DatasetFormat.PROMPT_COMPLETION).messages for row in ROWS)
        for turns in [[*turns[:-1], {"role": "assistant", "content": turns[-1]["content"] * (1 + 6 * (n % 2))}]]
    ]
    alone = make_batch(records)
    for attention in ("sdpa", "eager"):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation=attention)
        want = float(Supervised().loss(model, alone).detach())
        for packing in (Packing.ROWS, Packing.FLAT):
            batch = make_batch(records, packing)
            assert (batch.units, batch.tokens, batch.samples) == (alone.units, alone.tokens, alone.samples)
            assert batch.labels.numel() < alone.labels.numel()
            loss = float(Supervised().loss(model, batch).detach())
            torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)


# --- templates --------------------------------------------------------------------------------

LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        pytest.param(CHATML, ["Eins ü.<|im_end|>", "Zwei.<|im_end|>"], id="ChatML"),
        pytest.param(LLAMA3, ["Eins ü.<|eot_id|>", "Zwei.<|eot_id|>"], id="Llama 3"),
        pytest.param(MISTRAL, [" Eins ü.</s>", " Zwei.</s>"], id="Mistral"),
    ],
)
def test_the_loss_counts_what_the_assistant_wrote(tiny_model: Path, template: str, said: list[str]) -> None:
    encoder = load_encoder(tiny_model)
    encoder.template = ChatTemplate(template, {})
    turns = [
        {"role": role, "content": content}
        for role, content in [("user", "1?"), ("assistant", "Eins ü."), ("user", "2?"), ("assistant", "Zwei.")]
    ]
    encoded = encoder.encode(turns, 1000)
    assert [encoder.decode(encoded.ids[start:end]) for start, end in encoded.spans] == said


def test_tokenizer_and_template_that_do_not_fit_the_model(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "chat_template.jinja").write_text(LLAMA3)
    with pytest.raises(StageError, match=r"writes <\|begin_of_text\|>, which is no token"):
        load_encoder(model).check(chat=True)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(StageError, match="leaves out what the user says"):
        load_encoder(model).check(chat=True)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(StageError, match="embeddings for 100"):
        load_encoder(model).check(chat=False)
