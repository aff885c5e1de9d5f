"""The whole stage as the process it is in a pod: judge, general set, harness, speed, labels and samples in one run."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.judge_server import judge_server
from tests.trainer.support import Job, write_dataset, write_tiny_model
from tunewright_api.evaluation import Harness, MetricName
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError, classify
from tunewright_trainer.evaluation.answers import load_tokenizer
from tunewright_trainer.evaluation.harness import named, run_tasks

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
    assert len(server.requests) == 1 + 2 * 3, "a judge that cannot answer is found out before a model is loaded"
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
def test_a_judge_that_fails_costs_no_answer(job: Callable[..., Job], tmp_path: Path) -> None:
    with judge_server("4", 401) as server:
        judge = {"url": server.url, "model": "grader", "rubric": "right", "maxRecords": 2}
        made = job(method={"full": {}}, evaluation={"maxNewTokens": 4, "metrics": ["F1"], "judge": judge})
        pretend_to_train(made, tmp_path)
        failed = made.run("evaluate")
        assert (failed.code, failed.output.count('"evaluating"')) == (ExitCode.INVALID_CONFIG, 2), failed.describe()
        server.replies = ["3"]
        again = made.run("evaluate")
        assert (again.code, again.output.count('"evaluating"')) == (ExitCode.OK, 0), again.describe()
    assert [pair["metric"] for pair in again.message["evaluate"]["metrics"]] == ["F1", "JudgeScore"]
    assert not (made.work / "measured.json").exists()


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


@pytest.mark.parametrize(
    ("tasks", "code", "words"),
    [
        pytest.param({}, ExitCode.INVALID_CONFIG, "has no task products, only sums:", id="another name"),
        pytest.param(
            {"products.yaml": "task: ["},
            ExitCode.INVALID_CONFIG,
            "has no task products, only sums; products.yaml is not valid YAML",
            id="a broken file",
        ),
        pytest.param(
            {"products.yaml": TASK.replace("task: sums", "task: products").replace("sums.jsonl", "products.jsonl")},
            ExitCode.INVALID_DATA,
            "products.yaml reads products.jsonl, which",
            id="no data",
        ),
    ],
)
def test_a_task_that_is_not_there_is_told_before_training(
    job: Callable[..., Job], tmp_path: Path, tasks: dict[str, str], code: ExitCode, words: str
) -> None:
    directory = write_tasks(tmp_path / "tasks")
    for name, content in tasks.items():
        (directory / name).write_text(content)
    made = job(
        evaluation={"metrics": ["Loss"], "harness": {"uri": "pvc://data/tasks", "tasks": ["sums", "products"]}},
        evaluationInputs={"harness": str(directory)},
    )
    finished = made.run("prepare")
    assert finished.code == code, finished.describe()
    assert words in finished.message["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        pytest.param("", "no JSON", "ArrowInvalid: JSON parse error", id="data that are no JSON"),
        pytest.param("doc_to_text: '{{ question.nothing.more }}'\n", None, "UndefinedError", id="an unknown field"),
        pytest.param("doc_to_txt: x\n", None, "TypeError", id="an unknown key"),
        pytest.param("metric_list: [{metric: nope}]\n", None, "KeyError", id="an unknown metric"),
        pytest.param("process_docs: !function missing.function\n", None, "missing", id="a function that is not there"),
    ],
)
def test_a_task_that_does_not_work_is_one_sentence(
    tmp_path: Path, tiny_model: Path, task: str, data: str | None, words: str
) -> None:
    from transformers import AutoModelForCausalLM

    directory = write_tasks(tmp_path / "tasks")
    (directory / "sums.yaml").write_text(TASK + task)
    if data is not None:
        (directory / "sums.jsonl").write_text(data)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    harness = Harness(uri="pvc://data/tasks", tasks=["sums"])
    with pytest.raises(StageError, match=f"the task sums of .*tasks does not work: .*{words}") as caught:
        run_tasks(harness, directory, model, load_tokenizer(tiny_model), seed=1)
    assert caught.value.code is ExitCode.INVALID_CONFIG


@pytest.mark.parametrize(
    ("error", "want"),
    [
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), ExitCode.VOLUME_FULL, id="a full disk"
        ),
        pytest.param(MemoryError(), ExitCode.OUT_OF_MEMORY, id="no memory"),
        pytest.param(RuntimeError("can't allocate memory"), ExitCode.OUT_OF_MEMORY, id="no memory for a tensor"),
        pytest.param(RuntimeError("CUDA error: an illegal access"), ExitCode.INTERNAL, id="a broken GPU"),
        pytest.param(KeyError("x"), ExitCode.INVALID_CONFIG, id="the task's own"),
    ],
)
def test_what_the_machine_does_is_no_fault_of_the_task(tmp_path: Path, error: Exception, want: ExitCode) -> None:
    """datasets wraps what happens while it reads."""
    with pytest.raises((type(error), StageError)) as caught, named("sums", tmp_path):
        raise ValueError("while generating the dataset") from error
    assert classify(caught.value, [], free=lambda _: 1 << 40).code is want


@pytest.mark.slow
def test_a_model_that_computes_no_numbers_has_no_figures(job: Callable[..., Job], tmp_path: Path) -> None:
    made = job(method={"full": {}}, evaluation={"metrics": ["Loss"]})
    made.must("prepare")
    shutil.copytree(write_tiny_model(tmp_path / "broken", norm=float("nan")), made.work / "trained")
    finished = made.run("evaluate")
    assert finished.code == ExitCode.DIVERGED, finished.describe()
    assert "the tuned model's Loss is nan" in finished.message["message"]
    assert not (made.work / "evaluation.json").exists()
