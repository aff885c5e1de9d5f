"""The report of a run as files, from what its stages left in the work directory."""

import json
import shutil
from pathlib import Path
from typing import Any

from tunewright_api.results import EvaluateResult, TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.layout import Layout
from tunewright_trainer.report.curves import loss_png
from tunewright_trainer.report.page import Findings, render_page
from tunewright_trainer.report.steplog import read_steps

PAGE_FILE = "index.html"
STEPS_FILE = "steps.jsonl"
LOSS_FILE = "loss.png"
TENSORBOARD_DIR = "tensorboard"


def write_report(config: TrainerConfig, layout: Layout, directory: Path) -> None:
    """Fill `directory`, which is made: the page, and as far as training logged its steps, the log, the loss curve and
    the TensorBoard files."""
    directory.mkdir()
    findings = collect(config, layout)
    (directory / PAGE_FILE).write_text(render_page(findings), encoding="utf-8")
    if findings.steps:
        shutil.copyfile(layout.steps, directory / STEPS_FILE)
        (directory / LOSS_FILE).write_bytes(loss_png(findings.steps))
    if layout.tensorboard.is_dir():
        shutil.copytree(layout.tensorboard, directory / TENSORBOARD_DIR)


def collect(config: TrainerConfig, layout: Layout) -> Findings:
    """What the stages left behind."""
    trained, evaluation = _read(layout.train_result), _read(layout.evaluation)
    data, steps = _read(layout.dataset_report), read_steps(layout.steps)
    examples = data.pop("examples", [])
    return Findings(
        config=config,
        steps=[step.record for step in steps],
        elapsed=steps[-1].time - steps[0].time + steps[0].record.seconds if steps else None,
        trained=TrainResult.model_validate(trained) if trained else None,
        evaluation=EvaluateResult.model_validate(evaluation) if evaluation else None,
        statistics=data,
        examples=examples,
        environment=_read(layout.environment),
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is not there."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
