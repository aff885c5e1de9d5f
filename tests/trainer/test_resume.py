"""A run that goes on from a checkpoint, also after kill -9, computes what it would have computed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import REPO, Finished, Job, make_job
from tunewright_api.names import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = {"maxSteps": 40}
"""Enough for a run that is killed after its first checkpoint to be still under way."""


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        pytest.param(
            2,
            {"method": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.3}}, "distributed": {"ddp": {}}},
            id="LoRA with dropout, DDP x2",
        ),
        pytest.param(
            1,
            {"method": {"full": {}}, "hyperparameters": {"precision": "BF16"}},
            id="bf16 over fp32 weights, one process",
        ),
        pytest.param(
            2,
            {
                "method": {"full": {}},
                "hyperparameters": {"precision": "BF16"},
                "distributed": {"deepspeed": {"zeroStage": 1}},
            },
            id="bf16 weights and fp32 master weights, ZeRO-1 x2",
        ),
        pytest.param(
            2,
            {
                "method": {"full": {}},
                "hyperparameters": {"precision": "BF16"},
                "distributed": {"deepspeed": {"zeroStage": 3}},
            },
            id="bf16 weights and fp32 master weights, ZeRO-3 x2",
        ),
    ],
)
def test_the_second_half_is_the_same_again(job: Callable[..., Job], processes: int, overrides: dict[str, Any]) -> None:
    run = job(checkpoint={"everySteps": 4}, **overrides)
    run.config["hyperparameters"].update(maxSteps=8, microBatchSize=2)
    run.config["rendezvous"]["processesPerNode"] = processes
    run.must("prepare")
    whole = losses(run.run("train"))
    shutil.rmtree(run.work / "trained")
    again = losses(run.run("train"))
    assert list(again) == [5, 6, 7, 8]
    assert again == {step: pytest.approx(whole[step], rel=1e-6) for step in again}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, dict[int, float]]:
    """Split records, and the curve of one process over them that nothing interrupts."""
    whole = make_job(
        tmp_path_factory.mktemp("whole"),
        tiny_model,
        method={"full": {}},
        hyperparameters={**STEPS, "microBatchSize": 8},
    )
    whole.must("prepare")
    return whole.work / "dataset", losses(whole.run("train"))


@pytest.mark.parametrize("distributed", [{"fsdp": {}}, {"pipeline": {"stages": 2}}], ids=["FSDP2", "a pipeline"])
def test_a_killed_pod_does_not_change_the_curve(
    job: Callable[..., Job], distributed: dict[str, Any], prepared: tuple[Path, dict[int, float]]
) -> None:
    dataset, whole = prepared
    replicas = 1 if "pipeline" in distributed else 2
    hyperparameters = {**STEPS, "microBatchSize": 4 // replicas, "gradientAccumulationSteps": 2}
    run = job(
        method={"full": {}}, distributed=distributed, checkpoint={"everySteps": 4}, hyperparameters=hyperparameters
    )
    shutil.copytree(dataset, run.work / "dataset")

    # Two pods of one process each, and kill -9 for one of them.
    run.config["rendezvous"].update(nodes=2, processesPerNode=1)
    survivor, victim = run.start("train", 0), run.start("train", 1)
    survivor.wait_for((run.work / "checkpoints" / "step-4").is_dir)
    victim.kill()
    victim.process.wait()
    left = survivor.finish(timeout=60)
    assert left.code == ExitCode.PEER_LOST, left.describe()

    # The state is that of the processes, wherever they run: now both are in one pod.
    run.config["rendezvous"].update(nodes=1, processesPerNode=2)
    again = losses(run.run("train"))
    assert 4 < min(again) < max(again) == len(whole)
    assert {**left.losses(), **again} == {step: pytest.approx(loss, rel=1e-5) for step, loss in whole.items()}


STOPPING = """
import os, signal, sys, time
from pathlib import Path

if sys.orig_argv[1:3] == ["-m", "tunewright_trainer.worker"]:
    from tunewright_trainer.guards.watchdog import Watchdog

    enter = Watchdog.enter

    def stop_in(self, phase, step):
        enter(self, phase, step)
        if f"{phase} {step}" == os.environ["STOP_IN"]:
            os.kill(os.getppid(), signal.SIGTERM)
            while not (Path(os.environ["TUNEWRIGHT_RUN_DIR"]) / "stop").exists():
                time.sleep(0.01)
            if phase == "setup":
                signal.pause()

    Watchdog.enter = stop_in
"""
"""A worker in which the kubelet's SIGTERM comes in a certain phase. One that is stopped in setup stays there."""


def test_sigterm_in_any_phase_leaves_a_whole_checkpoint_or_the_result(job: Callable[..., Job], tmp_path: Path) -> None:
    run = job(checkpoint={"everySteps": 2}, evaluation={"everySteps": 2}, hyperparameters={"maxSteps": 6})
    run.must("prepare")
    (tmp_path / "sitecustomize.py").write_text(STOPPING)
    path = f"{tmp_path}:{REPO / 'crds'}:{REPO / 'trainer_image'}"
    checkpoints = run.work / "checkpoints"
    curve: list[int] = []
    for phase, code, saved in (
        ("setup 0", ExitCode.PREEMPTED, set()),
        ("step 0", ExitCode.PREEMPTED, {"step-1"}),
        ("checkpoint 2", ExitCode.PREEMPTED, {"step-1", "step-2"}),
        ("evaluate 4", ExitCode.PREEMPTED, {"step-2", "step-4"}),
        ("save 6", ExitCode.OK, {"step-2", "step-4"}),
    ):
        finished = run.run("train", env={"PYTHONPATH": path, "STOP_IN": phase})
        assert finished.code == code, (phase, finished.describe())
        made = {step.name: {file.name for file in step.iterdir()} for step in checkpoints.glob("step-*")}
        assert made == {step: {"checkpoint.json", "rank-0.pt"} for step in saved}, phase
        assert not list((checkpoints / ".partial").glob("*")), phase
        assert (run.work / "trained").exists() == (code is ExitCode.OK), phase
        curve += finished.losses()
    assert curve == [1, 2, 3, 4, 5, 6]


def losses(finished: Finished) -> dict[int, float]:
    """By step; the run went well."""
    assert finished.code == 0, finished.describe()
    return finished.losses()
