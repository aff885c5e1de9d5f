"""`tunewright-trainer check-data`: what it prints, whole, and what it exits with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import Job
from tunewright_api.names import ExitCode
from tunewright_trainer.__main__ import main
from tunewright_trainer.stages import check_data


def row(question: str, answer: str) -> str:
    return json.dumps({"instruction": question, "output": answer})


def check(job: Job, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors; the job's directory reads as DIR."""
    path = job.root / "config.json"
    path.write_text(json.dumps(job.config))
    with pytest.raises(SystemExit) as end:
        main(["check-data", "--config", str(path)])
    assert sorted(entry.name for entry in job.root.iterdir()) == ["config.json", "data.jsonl"]
    said = capsys.readouterr()
    output, errors = (text.replace(str(job.root), "DIR") for text in said)
    return int(str(end.value.code)), output, errors


def made(job: Callable[..., Job], lines: list[str], **overrides: Any) -> Job:
    result = job()
    for part, changes in overrides.items():
        result.config[part].update(changes)
    (result.root / "data.jsonl").write_text("\n".join(lines))
    return result


GOOD = [row(f"What is {n}?", "x" * n) for n in range(1, 61)]
GOOD_SAYS = """\
60 rows: 54 to train on, 6 held out, 0 dropped, 0 wrong
12 cut to sequenceLength (80 tokens)
0 repeat an earlier row
0 held out whose prompt is trained on too
tokens per record: 32 to 80, median 62.5, 95% up to 80; 3663 in all
             1-16         0
            17-32         1 #
            33-64        31 ########################################
           65-128        28 ####################################
"""


def test_good_data(job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(made(job, GOOD, hyperparameters={"sequenceLength": 80}), capsys) == (ExitCode.OK, GOOD_SAYS, "")


# One question in three answers, so that an answer is held out whose question is trained on.
MIXED = [
    *(row("What is the same?", f"Answer {n % 3}.") for n in range(6)),
    *("{" for _ in range(25)),
    *(row(f"What is {n}?", "It is.") for n in range(4)),
]

NOT_JSON = (
    "not valid JSON (Expecting property name enclosed in double quotes, column 1): write one complete JSON object per "
    "line"
)
MIXED_SAYS = """\
35 rows: 6 to train on, 4 held out, 0 dropped, 25 wrong
0 cut to sequenceLength (256 tokens)
3 repeat an earlier row (DIR/data.jsonl: line 4, DIR/data.jsonl: line 5, DIR/data.jsonl: line 6)
2 held out whose prompt is trained on too (DIR/data.jsonl: line 1, DIR/data.jsonl: line 4)
tokens per record: 37 to 47, median 47, 95% up to 47; 430 in all
             1-16         0
            17-32         0
            33-64        10 ########################################
25 wrong rows, the first 20 of them:
""" + "".join(f"  DIR/data.jsonl: line {line}: {NOT_JSON}\n" for line in range(7, 27))


REFUSED = "prepare will refuse this: correct the rows, or set dataset.onBadRow: Quarantine to leave them out\n"


def test_wrong_rows_copies_and_leaks(job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    mixed = made(job, MIXED, dataset={"validationPercent": 40})
    code, said, errors = check(mixed, capsys)
    assert (code, errors) == (ExitCode.INVALID_DATA, "")
    assert said == MIXED_SAYS + REFUSED
    mixed.config["dataset"]["onBadRow"] = "Quarantine"
    code, said, errors = check(mixed, capsys)
    assert (code, errors) == (ExitCode.OK, "")
    assert said == MIXED_SAYS + "prepare will leave the wrong rows out (dataset.onBadRow: Quarantine)\n"


def test_too_few_right_rows(job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    code, said, errors = check(made(job, [GOOD[0], "[]", "7"]), capsys)
    assert (code, errors) == (ExitCode.INVALID_DATA, "")
    assert said == (
        "too few right rows are left to train on and to hold out\n"
        "2 wrong rows:\n"
        f"  DIR/data.jsonl: line 2: a list instead of an object: write {SHAPE}\n"
        f"  DIR/data.jsonl: line 3: a number instead of an object: write {SHAPE}\n"
    )


SHAPE = '{"instruction": "…", "input": "…" (may be absent), "output": "…"}'


BOTH_SAYS = """\
18 rows: 16 to train on, 2 held out, 0 dropped, 0 wrong
  DIR/data.jsonl (Alpaca): 10 rows: 8 to train on, 2 held out, 0 dropped, 0 wrong
  TMP/texts.jsonl (Text): 8 rows: 8 to train on, 0 held out, 0 dropped, 0 wrong
0 cut to sequenceLength (256 tokens), 2 divided into 4 pieces
0 repeat an earlier row
0 held out whose prompt is trained on too
tokens per record: 32 to 241, median 41.5, 95% up to 203; 1814 in all
             1-16         0
            17-32         1 ####
            33-64        10 ########################################
           65-128         2 ########
          129-256         7 ############################
"""


def test_documents_and_conversations(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": f"{n} " * 20 * n}) for n in range(1, 9)))
    both = made(job, GOOD[:10])
    parts = [{"path": str(both.root / "data.jsonl"), "format": "Alpaca"}]
    parts.append({"path": str(tmp_path / "texts.jsonl"), "format": "Text"})
    both.config["dataset"] = {"mixture": parts, "validationPercent": 10}
    code, said, errors = check(both, capsys)
    assert (code, errors) == (ExitCode.OK, "")
    assert said.replace(str(tmp_path), "TMP") == BOTH_SAYS


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param({"dataset": {"path": "/no/data.jsonl"}}, 66, "/no/data.jsonl: it does not exist", id="no data"),
        pytest.param({"model": {"path": "/no/model"}}, 66, "/no/model", id="no model"),
        pytest.param(
            {"model": {"uri": "hf://org/model", "path": None, "hubId": "org/model"}},
            66,
            "hf://org/model is not on this machine: download it, and write its directory into model.path",
            id="a model on the hub",
        ),
        pytest.param({"dataset": {"onLongRecord": "Split"}}, 64, "needs the format Text", id="a rule that cannot be"),
        pytest.param({"dataset": {"format": "Alpaka"}}, 64, "dataset.format", id="a wrong configuration"),
    ],
)
def test_what_hinders_it_is_one_line(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str], change: dict[str, Any], code: int, words: str
) -> None:
    found, said, errors = check(made(job, GOOD, **change), capsys)
    assert (found, said) == (code, "")
    assert words in errors
    assert len(errors.splitlines()) == 1


def reference(directory: Path) -> dict[str, Any]:
    described = {"uri": "pvc://data/kept.jsonl", "format": "Alpaca"}
    return {"objective": {"supervised": {"ewc": {"reference": described}}}, "objectiveInputs": {"reference": directory}}


def general(directory: Path) -> dict[str, Any]:
    described = {"uri": "pvc://data/general.jsonl", "format": "Alpaca"}
    return {"evaluation": {"general": described}, "evaluationInputs": {"general": directory}}


def teacher(directory: Path) -> dict[str, Any]:
    described = {"teacher": {"uri": "pvc://models/teacher"}}
    return {"objective": {"supervised": {"distillation": described}}, "objectiveInputs": {"teacher": directory}}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param({"evaluation": {"metrics": ["Accuracy"]}}, 64, "Accuracy", id="a figure without labels"),
        pytest.param(general(Path("/no/general.jsonl")), 66, "/no/general.jsonl", id="no general set"),
        pytest.param(reference(Path("/no/kept.jsonl")), 66, "/no/kept.jsonl", id="no reference set"),
        pytest.param(teacher(Path("/no/teacher")), 66, "/no/teacher", id="no teacher"),
    ],
)
def test_what_prepare_checks_besides_the_dataset(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str], change: dict[str, Any], code: int, words: str
) -> None:
    good = made(job, [row(f"What is {n}?", "x" * n) for n in range(1, 231)])
    good.config.update(json.loads(json.dumps(change, default=str)))
    found, said, errors = check(good, capsys)
    *counts, last = said.splitlines()
    assert (found, errors) == (code, "")
    assert counts[0] == "230 rows: 207 to train on, 23 held out, 0 dropped, 0 wrong"
    assert last.startswith("prepare will refuse this: ")
    assert words in last
    refused = good.run("prepare")
    assert refused.code == code
    assert last == f"prepare will refuse this: {refused.message['message']}".replace(str(good.root), "DIR")


def test_an_empty_file(job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(made(job, []), capsys) == (
        65,
        "",
        f"DIR/data.jsonl has no records: fill it with rows like {SHAPE}, or name another file\n",
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check-data", "--help"])
    assert not end.value.code
    assert "  check-data  read the dataset as prepare does" in capsys.readouterr().out


def test_a_bug_is_told_in_a_sentence_before_its_traceback(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(check_data, "run", explode)
    code, output, errors = check(made(job, GOOD), capsys)
    assert (code, output) == (ExitCode.INTERNAL, "")
    assert "a bug" in errors.splitlines()[0]
    assert "Traceback" not in errors.splitlines()[0]
