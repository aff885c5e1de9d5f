"""The whole stage as the process it is in a pod: judge, general set, harness, speed, labels and samples in one run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.judge_server import judge_server
from tests.trainer.support import Job, write_dataset, write_tiny_model
from tunewright_api.evaluation import MetricName
from tunewright_api.names import ExitCode

TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}} A:"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


def write_tasks(directory: Path) -> Path:
    """A directory with the task `sums`."""
    directory.mkdir()
    rows = [{"question": f"{n} + 1?", "choices": [str(n + 1), str(n + 2)], "gold": 0} for n in range(4)]
    (directory / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "sums.yaml").write_text(TASK)
    return directory


def write_labelled(path: Path) -> Path:
    """Records with two answers."""
    rows = [{"instruction": f"Is {n} even?", "output": "no" if n % 2 else "yes"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pretend_to_train(job: Job, directory: Path) -> None:
    """Prepare, and put other weights where training would have left them."""
    job.must("prepare")
    shutil.copytree(write_tiny_model(directory / "other", norm=2.0), job.work / "trained")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_figure_in_one_run(job: Callable[..., Job], tmp_path: Path) -> None:
    with judge_server("4") as server:
        made = job(
            method={"full": {}},
            dataset={"path": str(write_labelled(tmp_path / "labelled.jsonl")), "validationPercent": 50},
            evaluation={
                "maxNewTokens": 4,
                "metrics": [name.value for name in MetricName],
                "samplePrompts": ["Who?"],
                "judge": {"url": server.url, "model": "grader", "rubric": "right", "maxRecords": 3},
                "general": {"uri": "pvc://data/general.jsonl", "format": "Alpaca"},
                "harness": {"uri": "pvc://data/tasks", "tasks": ["sums"]},
                "gates": [{"metric": "ForgettingLoss", "max": 1}],
            },
            evaluationInputs={
                "general": str(write_dataset(tmp_path / "general.jsonl", 6)),
                "harness": str(write_tasks(tmp_path / "tasks")),
            },
        )
        pretend_to_train(made, tmp_path)
        result = made.must("evaluate")["evaluate"]
    assert len(server.requests) == 2 * 3
    pairs: dict[str, tuple[float, float]] = {p["metric"]: (p["base"], p["tuned"]) for p in result["metrics"]}
    assert list(pairs) == [name.value for name in MetricName]
    assert pairs["JudgeScore"] == (4, 4)
    general = pairs["GeneralLoss"]
    assert pairs["ForgettingLoss"][0] == 0
    assert pairs["ForgettingLoss"][1] == pytest.approx(general[1] - general[0], abs=2e-6)
    assert general[0] != general[1]
    assert 0 < pairs["AnswerSecondsP50"][1] <= pairs["AnswerSecondsP95"][1]
    assert pairs["TokensPerSecond"][1] > 0
    (task,) = result["tasks"]
    assert (task["task"], task["metric"]) == ("sums", "acc")
    assert pairs["HarnessScore"] == (task["base"], task["tuned"])
    assert json.loads((made.work / "evaluation.json").read_text())["metrics"] == result["metrics"]


@pytest.mark.slow
def test_only_the_loss_generates_nothing(job: Callable[..., Job], tmp_path: Path) -> None:
    made = job(method={"full": {}}, evaluation={"metrics": ["Loss"]})
    pretend_to_train(made, tmp_path)
    result = made.must("evaluate")["evaluate"]
    assert [pair["metric"] for pair in result["metrics"]] == ["Loss"]
    assert result["samples"] == []


@pytest.mark.slow
def test_the_loss_on_held_out_records_while_training_is_that_of_the_evaluation(job: Callable[..., Job]) -> None:
    made = job(
        hyperparameters={"maxSteps": 5},
        dataset={"validationPercent": 30},
        evaluation={"everySteps": 2, "metrics": ["Loss"]},
    )
    made.must("prepare", "train")
    steps = [json.loads(line) for line in (made.work / "steps.jsonl").read_text().splitlines()]
    losses = {step["step"]: step["figures"]["evalLoss"] for step in steps if "evalLoss" in step["figures"]}
    assert list(losses) == [2, 4, 5]
    (pair,) = made.must("evaluate")["evaluate"]["metrics"]
    assert losses[5] == pytest.approx(pair["tuned"], rel=1e-4)
    assert losses[5] < losses[2] < pair["base"]


def test_what_cannot_be_evaluated_is_told_before_training(job: Callable[..., Job], tmp_path: Path) -> None:
    finished = job(evaluation={"metrics": ["Accuracy"]}).run("prepare")
    assert finished.code == ExitCode.INVALID_CONFIG, finished.describe()
    assert "Accuracy needs a labelled set" in finished.message["message"]
    broken = tmp_path / "general.jsonl"
    broken.write_text('{"instruction": "x"}\n')
    general: dict[str, Any] = {"uri": "pvc://data/general.jsonl", "format": "Alpaca"}
    finished = job("second", evaluation={"general": general}, evaluationInputs={"general": str(broken)}).run("prepare")
    assert finished.code == ExitCode.INVALID_DATA, finished.describe()
    assert f'{broken}: line 1: field "output" is missing' in finished.message["message"]


@pytest.mark.slow
def test_a_task_that_is_not_there(job: Callable[..., Job], tmp_path: Path) -> None:
    made = job(
        method={"full": {}},
        evaluation={"metrics": ["Loss"], "harness": {"uri": "pvc://data/tasks", "tasks": ["products"]}},
        evaluationInputs={"harness": str(write_tasks(tmp_path / "tasks"))},
    )
    pretend_to_train(made, tmp_path)
    finished = made.run("evaluate")
    assert finished.code == ExitCode.INVALID_CONFIG, finished.describe()
    assert "has no task products, only sums" in finished.message["message"]
