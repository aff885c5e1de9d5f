"""Runs from the user's files to trained weights in this process; as a script one rank of several runs in a row.

RANK=0 WORLD_SIZE=2 … python tests/trainer/objective_run.py OUT CONFIG…   # rank 0 writes the steps of each run to OUT
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import Job
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.steps import StepRecord

FULL: dict[str, Any] = {"full": {}}
LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8}}
QLORA: dict[str, Any] = {"qlora": {"rank": 4, "alpha": 8}}


@dataclass(frozen=True)
class Run:
    """What training did."""

    job: Job
    steps: list[StepRecord]

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    def figure(self, name: str) -> list[float]:
        """Of each step."""
        return [step.figures[name] for step in self.steps]


class LostError(Exception):
    """As a lost node."""


def run(job: Job, steps: int | None = None) -> Run:
    """Prepare and train; with `steps` the process is lost after the checkpoint of that step."""
    prepare(job)
    return Run(job, train(job, steps))


def prepare(job: Job) -> None:
    """The stage, in this process."""
    from tunewright_trainer.stages import prepare as stage

    stage.run(TrainerConfig.model_validate(job.config))


def train(job: Job, steps: int | None = None) -> list[StepRecord]:
    """Train what is prepared."""
    seen: list[StepRecord] = []
    recipe = Recipe(TrainerConfig.model_validate(job.config), RunDirectory(job.root), None)
    recipe.setup()
    recipe.hooks.step.append(seen.append)
    if steps is None:
        recipe.train()
        return seen

    def lose(record: StepRecord) -> None:
        if record.step == steps + 1:
            seen.pop()
            recipe.checkpoints.wait()
            raise LostError

    recipe.hooks.step.append(lose)
    with pytest.raises(LostError):
        recipe.train()
    return seen


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def codes(path: Path, count: int = 24) -> str:
    """Records that ask for the code of an item."""
    return write_rows(path, [{"instruction": f"Code of {i}?", "output": f"TW-{i * 7:04d}"} for i in range(count)])


def colours(path: Path, count: int = 24) -> str:
    """Records about something else."""
    return write_rows(
        path,
        [{"instruction": f"Colour {i}?", "output": f"blue and {'green' if i % 2 else 'red'}"} for i in range(count)],
    )


def pairs(path: Path, count: int = 24) -> str:
    """Prefer a friendly answer."""
    rows = [{"prompt": f"Item {i}?", "chosen": "Yes, gladly.", "rejected": "No. Go away."} for i in range(count)]
    return write_rows(path, rows)


def main() -> None:
    """Train each configuration with the same processes."""
    import torch

    from tunewright_trainer import deepspeed_config
    from tunewright_trainer.processes import join

    torch.set_num_threads(1)
    processes = join(distributed=True)
    configure = deepspeed_config.deepspeed_config

    def divide_all(*args: Any) -> dict[str, Any] | None:
        """No tensor is small enough to stay whole: what this model has is divided as a large one's weights are."""
        configuration = configure(*args)
        if configuration:
            configuration["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return configuration

    replace = pytest.MonkeyPatch()
    replace.setattr("tunewright_trainer.recipe.join", lambda *, distributed: processes)
    replace.setattr(deepspeed_config, "deepspeed_config", divide_all)
    out, *configurations = map(Path, sys.argv[1:])
    found: dict[str, Any] = {}
    for path in configurations:
        steps = train(Job(path.parent, json.loads(path.read_text())))
        found[path.parent.name] = [{"loss": step.loss, **step.figures} for step in steps]
    if not processes.rank:
        out.write_text(json.dumps(found))
    processes.meet()


if __name__ == "__main__":
    main()
