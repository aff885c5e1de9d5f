"""A run that goes on from a checkpoint draws the same random numbers and has the same master weights."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer.support import Finished, Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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


def losses(finished: Finished) -> dict[int, float]:
    """By step; the run went well."""
    assert finished.code == 0, finished.describe()
    return finished.losses()
