"""Training as pods do it: real processes, gloo, DeepSpeed, signals."""

import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.trainer.support import Job, make_job, write_tiny_model
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import JobIdentity
from tunewright_trainer.report.steplog import read_steps
from tunewright_trainer.steps import StepRecord
from tunewright_trainer.telemetry import Telemetry
from tunewright_trainer.weights import tensor_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# A global batch of 16 records, whoever shares it.
STEPS = 20
BATCHES = {
    1: {"microBatchSize": 16, "gradientAccumulationSteps": 1},
    2: {"microBatchSize": 2, "gradientAccumulationSteps": 4},
    4: {"microBatchSize": 2, "gradientAccumulationSteps": 2},
}


def pods(root: Path, model: Path, nodes: int, processes: int, **overrides: Any) -> Job:
    """A full fine-tuning run in fp32 over `nodes` pods of `processes`."""
    hyperparameters = {
        **BATCHES[nodes * processes],
        "maxSteps": STEPS,
        "precision": "FP32",
        "scheduler": "Constant",
        **overrides.pop("hyperparameters", {}),
    }
    job = make_job(root, model, method={"full": {}}, hyperparameters=hyperparameters, **overrides)
    job.config["rendezvous"].update(nodes=nodes, processesPerNode=processes)
    job.must("prepare")
    return job


@pytest.fixture(scope="module")
def one_job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """A finished run of one process."""
    job = pods(tmp_path_factory.mktemp("one"), tiny_model, 1, 1)
    (finished,) = job.train()
    assert finished.code == 0, finished.describe()
    losses = finished.losses()
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < losses[1]
    return job


@pytest.fixture(scope="module")
def one_process(one_job: Job) -> dict[int, float]:
    """The loss curve of one process."""
    return {record.step: record.loss for record in logged(one_job)}


def logged(job: Job) -> list[StepRecord]:
    """The log of the steps."""
    return [step.record for step in read_steps(job.work / "steps.jsonl")]


def worst_difference(got: dict[int, float], want: dict[int, float]) -> float:
    """Largest relative difference over the steps of `got`."""
    return max(abs(loss - want[step]) / want[step] for step, loss in got.items())


@pytest.mark.parametrize(("stage", "nodes", "processes"), [(0, 2, 1), (1, 1, 2), (2, 2, 2), (3, 2, 1)])
def test_several_processes_compute_the_curve_of_one(
    *, tmp_path: Path, tiny_model: Path, one_job: Job, stage: int, nodes: int, processes: int
) -> None:
    one_process = {record.step: record.loss for record in logged(one_job)}
    job = pods(tmp_path / "job", tiny_model, nodes, processes, distributed={"deepspeed": {"zeroStage": stage}})
    finished = job.train()
    assert [pod.code for pod in finished] == [0] * nodes, "\n".join(pod.describe() for pod in finished)
    losses = finished[0].losses()
    assert list(losses) == list(one_process)
    assert worst_difference(losses, one_process) < 1e-3
    for pod in finished:
        assert pod.message["train"]["steps"] == STEPS
    assert tensor_names(job.work / "trained") == tensor_names(tiny_model)
    read = [[(record.tokens, record.samples) for record in logged(run)] for run in (job, one_job)]
    assert read[0] == read[1], "figures over all processes do not depend on their number"
    assert {samples for _, samples in read[0]} == {16}


def test_a_killed_pod_and_a_preempted_pod_cost_nothing_but_time(
    tmp_path: Path, tiny_model: Path, one_process: dict[int, float]
) -> None:
    job = pods(
        tmp_path / "job",
        tiny_model,
        nodes=2,
        processes=1,
        distributed={"deepspeed": {"zeroStage": 2}},
        checkpoint={"everySteps": 4},
    )
    checkpoints = job.work / "checkpoints"
    curve: dict[int, float] = {}

    # SIGKILL of one pod right after the first checkpoint.
    survivor, victim = job.start("train", 0), job.start("train", 1)
    survivor.wait_for((checkpoints / "step-4").is_dir)
    victim.kill()
    victim.process.wait()
    ended = survivor.finish(timeout=20)
    assert ended.code == ExitCode.PEER_LOST, ended.describe()
    assert ExitCode(ended.code).retriable
    assert ended.message["rank"] == 0
    curve |= ended.losses()

    # SIGTERM of one pod: both stop at the same step, with a checkpoint.
    first, second = job.start("train", 0), job.start("train", 1)
    first.wait_for((checkpoints / "step-8").is_dir)
    second.terminate()
    stopped = [first.finish(timeout=60), second.finish(timeout=60)]
    assert [pod.code for pod in stopped] == [ExitCode.PREEMPTED] * 2, "\n".join(p.describe() for p in stopped)
    resumed = stopped[0].losses()
    assert min(resumed) > 4
    assert (checkpoints / f"step-{max(resumed)}").is_dir()
    assert str(max(resumed)) in stopped[0].message["message"]
    curve |= resumed

    # The last attempt goes on exactly there.
    finished = job.train()
    assert [pod.code for pod in finished] == [0, 0], "\n".join(pod.describe() for pod in finished)
    assert min(finished[0].losses()) == max(resumed) + 1
    curve |= finished[0].losses()
    assert sorted(curve) == list(one_process)
    assert worst_difference(curve, one_process) < 1e-3
    assert len([path for path in checkpoints.iterdir() if path.name.startswith("step-")]) <= 2


def test_all_ranks_resume_from_the_checkpoint_of_rank_0(tmp_path: Path, tiny_model: Path) -> None:
    job = pods(
        tmp_path / "job",
        tiny_model,
        nodes=2,
        processes=1,
        distributed={"deepspeed": {"zeroStage": 2}},
        checkpoint={"everySteps": 2},
        hyperparameters={"maxSteps": 3},
    )
    assert [pod.code for pod in job.train()] == [0, 0]
    shutil.rmtree(job.work / "trained")
    elsewhere = Job(tmp_path / "elsewhere", json.loads(json.dumps(job.config)))
    elsewhere.config["directories"]["work"] = str(elsewhere.work)
    shutil.copytree(job.work / "dataset", elsewhere.work / "dataset")
    env = {"TUNEWRIGHT_CHECKPOINT_TIMEOUT": "1"}
    started = [job.start("train", 0, env=env), elsewhere.start("train", 1, env=env)]
    finished = [pod.finish(timeout=120) for pod in started]
    assert [pod.code for pod in finished] == [ExitCode.PEER_LOST, ExitCode.INPUT_NOT_READABLE], "\n".join(
        pod.describe() for pod in finished
    )
    assert f"cannot read {elsewhere.work / 'checkpoints' / 'step-2'}: " in finished[1].message["message"]


def scrape(job: Job) -> dict[str, float]:
    """GET /metrics: samples by name without prefix, with the value of the only label where there is one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{job.config['port']}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        ":".join([sample.name.removeprefix("tunewright_train_"), *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_figure_is_served_while_training_and_a_restart_goes_on_with_it(job: Callable[..., Job]) -> None:
    running = job(
        hyperparameters={"maxSteps": 5000}, evaluation={"everySteps": 2}, checkpoint={"everySteps": 2, "keepLast": 1}
    )
    running.must("prepare")
    pod = running.start("train")

    def answered(*names: str) -> bool:
        try:
            progress = running.progress()
        except OSError:
            return False
        return all(progress.get(name) for name in names)

    # Before the model is loaded the length of the run is known.
    pod.wait_for(lambda: answered("totalSteps"))
    pod.wait_for(lambda: answered("loss", "evalLoss", "checkpointStep"))
    progress, told = running.progress(), scrape(running)
    tokens = [record.tokens for record in logged(running)]
    assert progress["totalSteps"] == 5000
    assert 0 < progress["step"] <= told["step"] < 5000
    assert 0 < progress["tokensPerSecond"] < 1e7
    assert 0 < progress["etaSeconds"] < 1e6
    assert 0 < progress["loss"] < 20

    ranges = {
        "loss": (0.1, 20),
        "eval_loss": (0.1, 20),
        "learning_rate": (1e-9, 2e-3),
        "tokens_per_second": (10, 1e7),
        "step": (2, 5000),
        "total_steps": (5000, 5000),
        "epoch": (told["step"] * 4 / 36 - 1e-3, told["step"] * 4 / 36 + 1e-3),
        "eta_seconds": (0.1, 1e6),
        "checkpoint_step": (2, told["step"]),
        "grad_norm": (1e-6, 1e3),
        "samples_per_second": (0.1, 1e5),
        "data_wait_share": (0, 1),
        "memory_bytes": (50e6, 20e9),
        "peak_memory_bytes": (told["memory_bytes"], 20e9),
        "checkpoint_stall_seconds_total": (1e-6, 600),
        "step_seconds_count": (told["step"], told["step"]),
        "step_seconds_sum": (1e-3, 600),
        "tokens_total": (told["step"] * min(tokens), told["step"] * max(tokens)),
        "info:support:team:uid-1": (1, 1),
        **{
            f"startup_seconds:{part}": (0, 600)
            for part in ("launch", "imports", "processes", "model", "optimizer", "resume", "batch")
        },
    }
    beside = {name for name in told if name.startswith("step_seconds_bucket:") or name.endswith("_created")}
    assert told.keys() - beside == ranges.keys()
    for name, (low, high) in ranges.items():
        assert low <= told[name] <= high, (name, told[name])
    declared = {
        family.name.removeprefix("tunewright_train_")
        for family in Telemetry(JobIdentity(namespace="a", name="b", uid="c")).registry.collect()
    }
    shown = {name for name in declared for sample in told if sample.partition(":")[0].startswith(name)}
    assert declared - shown == {"mfu", "gpu_memory_percent"}, "what a CPU does not have"

    pod.terminate()
    assert pod.finish(timeout=60).code == ExitCode.PREEMPTED

    # The restart tells where the run stands, and nothing else, until its first step.
    before = logged(running)
    running.config["hyperparameters"]["maxSteps"] = before[-1].step + 5
    pod = running.start("train")
    seen: list[dict[str, float]] = []

    def stands() -> bool:
        try:
            seen.append(scrape(running))
        except OSError:
            return False
        return "step" in seen[-1]

    pod.wait_for(stands)
    first = seen[-1]
    assert {name: first[name] for name in ("step", "checkpoint_step", "total_steps")} == {
        "step": before[-1].step,
        "checkpoint_step": before[-1].step,
        "total_steps": before[-1].step + 5,
    }
    newest = [record.figures["evalLoss"] for record in before if "evalLoss" in record.figures][-1]
    assert first["eval_loss"] == running.progress()["evalLoss"] == pytest.approx(newest)
    assert not {"loss", "eta_seconds", "learning_rate", "grad_norm", "memory_bytes"} & first.keys()
    finished = pod.finish()
    assert finished.code == 0, finished.describe()
    whole = sum(record.seconds for record in logged(running))
    assert finished.message["train"]["seconds"] == pytest.approx(whole, abs=0.1)
    assert json.loads((running.work / "environment.json").read_text())["Attention"] == "sdpa"


def test_an_unknown_target_module_costs_no_training(job: Callable[..., Job]) -> None:
    wrong = job(method={"lora": {"targetModules": ["no_such_proj"]}})
    finished = wrong.run("prepare")
    assert finished.code == ExitCode.INVALID_CONFIG, finished.describe()
    assert "method.lora.targetModules" in finished.message["message"]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", write_tiny_model(tmp_path / "broken", norm=float("nan")))
    job.must("prepare")
    finished = job.run("train")
    assert finished.code == ExitCode.DIVERGED, finished.describe()
    assert "the loss became nan at step 1: lower hyperparameters.learningRate" in finished.message["message"]
    assert not (job.work / "trained").exists()


def test_a_worker_that_is_killed_is_named(job: Callable[..., Job]) -> None:
    running = job(hyperparameters={"maxSteps": 5000})
    running.must("prepare")
    pod = running.start("train")
    children = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children")
    pod.wait_for(lambda: bool(children.read_text().strip()))
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    finished = pod.finish(timeout=30)
    assert finished.code == ExitCode.INTERNAL, finished.describe()
    assert finished.message["rank"] == 0
    assert "SIGKILL" in finished.message["message"]


def test_train_again_after_the_end_reports_the_same_result(job: Callable[..., Job]) -> None:
    done = job()
    trained = done.must("prepare", "train")
    assert done.must("train") == trained
    assert json.loads((done.work / "trained" / "train.json").read_text())["steps"] == 4


def test_records_of_similar_length_come_together_and_the_newest_checkpoint_alone_is_kept(
    tmp_path: Path, tiny_model: Path
) -> None:
    job = make_job(
        tmp_path / "job",
        tiny_model,
        hyperparameters={
            **{"microBatchSize": 2, "gradientAccumulationSteps": 1, "maxSteps": 12},
            **{"precision": "FP32", "sequenceLength": 256, "groupByLength": True},
        },
        checkpoint={"everySteps": 1, "keepLast": 1},
    )
    rows = [{"instruction": f"Item {i}?", "output": "long " * 30 if i % 2 else "short"} for i in range(40)]
    (job.root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job.must("prepare", "train")
    tokens = [record.tokens for record in logged(job)]
    short, long = min(tokens), max(tokens)
    assert long > 2 * short
    mixed = [count for count in tokens if 1.2 * short < count < long / 1.2]
    assert len(mixed) <= 1, "one pair at most is neither two short records nor two long ones"
    assert [path.name for path in (job.work / "checkpoints").glob("step-*")] == ["step-11"]
