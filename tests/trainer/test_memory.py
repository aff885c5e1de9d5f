"""The memory estimate: reported by prepare, and within 15 percent of what the trainer's own steps take."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.trainer.memory import CASES, WITHIN, Case, estimated, measured
from tests.trainer.support import Job

# One of each kind; `make test-exhaustive` measures the others, too.
_USUAL = {"full", "lora, checkpointing", "qlora"}


def test_prepare_reports_what_training_will_need(job: Callable[..., Job]) -> None:
    made = job(hyperparameters={"sequenceLength": 512})
    one = made.must("prepare")["prepare"]["estimate"]
    assert one["deviceBytes"] > 4 * (259 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64))  # the weights of the tiny model
    assert one["advice"][0].startswith("hyperparameters.gradientCheckpointing: true (about ")
    made.config["hyperparameters"]["microBatchSize"] = 8
    assert made.must("prepare")["prepare"]["estimate"]["deviceBytes"] > one["deviceBytes"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.name in _USUAL else pytest.mark.exhaustive) for case in CASES],
)
def test_the_estimate_is_near_what_was_measured(case: Case, smollm: Path) -> None:
    assert estimated(case, smollm).total == pytest.approx(measured(case, smollm), rel=WITHIN)
