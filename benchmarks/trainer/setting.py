"""A full fine-tuning run in this process, whose steps a benchmark can watch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.trainer.cut_model import cut_model
from tests.trainer.support import make_job, real_model, write_tiny_model
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.telemetry import Telemetry


def model(root: Path, name: str) -> Path:
    """`smollm`: SmolLM2 cut to 4 layers, from the cache; `tiny`: random weights of 2 small layers."""
    return cut_model(real_model()) if name == "smollm" else write_tiny_model(root / "tiny")


def recipe(root: Path, path: Path, **overrides: Any) -> Recipe:
    """A run that is set up as rank 0's, but serves no metrics: fp32, full fine-tuning, records of about 60 tokens."""
    job = make_job(root / "job", path, method={"full": {}}, **overrides)
    job.must("prepare")
    transformers.utils.logging.disable_progress_bar()
    (root / "run").mkdir()
    config = TrainerConfig.model_validate(job.config)
    made = Recipe(config, RunDirectory(root / "run"), Telemetry(config.job))
    made.setup()
    return made


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a benchmark, to begin with: which model."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", choices=["smollm", "tiny"], default="smollm")
    return made


def machine() -> str:
    """Where the figures come from."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"{where}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
