"""/progress and /metrics: what is told before the first step, after a restart, and of what is no number."""

import json
import math
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.trainer.support import free_port, step_record
from tunewright_api.results import Progress
from tunewright_api.trainer_config import JobIdentity
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.flops import Utilisation
from tunewright_trainer.hardware import Hardware
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.progress import Pace
from tunewright_trainer.report.steplog import LoggedStep, StepLog, read_evaluations
from tunewright_trainer.reporter import Reporter
from tunewright_trainer.steps import EVAL_LOSS
from tunewright_trainer.telemetry import Telemetry

PLAN = RunPlan(records=40, global_batch=4, total_steps=100, warmup_steps=0)


def telemetry() -> Telemetry:
    return Telemetry(JobIdentity(namespace="team", name="support", uid="1"))


def gauges(told: Telemetry) -> dict[str, float]:
    """Samples of the gauges without labels."""
    families = text_string_to_metric_families(generate_latest(told.registry).decode())
    return {
        sample.name.removeprefix("tunewright_train_"): sample.value
        for family in families
        if family.type == "gauge"
        for sample in family.samples
        if not sample.labels and not sample.name.endswith("_created")
    }


def reporter(told: Telemetry, completed: int | None, evaluations: list[float]) -> Reporter:
    checkpoints = cast(Checkpointer, SimpleNamespace(completed=completed))
    hardware = Hardware(Utilisation(None, None), memory=None)
    return Reporter(PLAN, Pace(100), told, checkpoints, hardware=hardware, evaluations=evaluations)


def test_nothing_is_told_before_it_is_known() -> None:
    assert gauges(telemetry()) == {}


def test_a_run_that_begins_knows_its_length_only() -> None:
    told = telemetry()
    reporter(told, None, [])
    assert told.progress == Progress(step=0, total_steps=100, epoch=0.0)
    assert gauges(told) == {"step": 0, "total_steps": 100, "epoch": 0}


def test_a_run_that_goes_on_tells_where_it_stands_and_its_last_evaluation() -> None:
    told = telemetry()
    on_step = reporter(told, 20, [3.0, 2.5]).on_step
    assert told.progress == Progress(step=20, total_steps=100, epoch=2.0, eval_loss=2.5, checkpoint_step=20)
    assert gauges(told) == {"step": 20, "total_steps": 100, "epoch": 2, "eval_loss": 2.5, "checkpoint_step": 20}
    on_step(step_record(21))
    assert told.progress
    assert (told.progress.step, told.progress.eval_loss) == (21, 2.5)
    on_step(step_record(22, figures={EVAL_LOSS: 2.25}))
    assert told.progress.eval_loss == 2.25


def test_evaluations_after_the_checkpoint_were_not_made(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "steps.jsonl", 0)
    for step in range(1, 7):
        figures = {EVAL_LOSS: 10.0 - step} if step % 2 == 0 else {}
        log.append(LoggedStep(float(step), step_record(step, figures=figures)))
    log.close()
    assert read_evaluations(tmp_path / "steps.jsonl", until=5) == [8.0, 6.0]


def test_progress_over_http_is_json_even_of_what_is_no_number() -> None:
    told, port = telemetry(), free_port()
    server = told.serve(port)

    def progress() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
            return json.loads(answer.read(), parse_constant=pytest.fail)

    try:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            progress()
        told.publish(Progress(step=1, total_steps=2, epoch=0.5, loss=math.inf, eval_loss=math.nan))
        assert progress() == {"step": 1, "totalSteps": 2, "epoch": 0.5, "loss": None, "evalLoss": None}
    finally:
        server.shutdown()
        server.server_close()
