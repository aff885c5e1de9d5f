"""What full fine-tuning saves is a whole model."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.support import Job
from tunewright_api.names import ExitCode
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import weights
from tunewright_trainer.errors import StageError
from tunewright_trainer.layout import Layout
from tunewright_trainer.parallel.single import Single


class Net(torch.nn.Module):
    """One tensor of each sort."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(2, 3, bias=False)
        self.head = torch.nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("bias", torch.ones(2))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("cache", torch.ones(2), persistent=False)


@pytest.mark.parametrize(
    ("whole", "want"),
    [
        pytest.param(
            True,
            {
                "embed.weight": torch.bfloat16,
                "frozen": torch.bfloat16,
                "bias": torch.float32,
                "count": torch.int64,
            },
            id="full: everything that belongs to the model, tied tensors once",
        ),
        pytest.param(False, {"embed.weight": torch.bfloat16}, id="adapter: what was trained"),
    ],
)
def test_what_is_gathered(*, whole: bool, want: dict[str, torch.dtype]) -> None:
    state = weights.gather(Net(), keep=True, dtype=torch.bfloat16, whole=whole)
    assert {name: tensor.dtype for name, tensor in state.items()} == want
    assert weights.gather(Net(), keep=False, dtype=None, whole=whole) == {}


def load(path: Path) -> Any:
    """The tiny model with a frozen norm, and a buffer as mixtures of experts have one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path)
    model.model.norm.weight.requires_grad_(requires_grad=False)
    model.model.register_buffer("correction", torch.full((2,), 7.0))
    return model


def save(model: Any, job: Job) -> Layout:
    """Save as rank 0 does at the end of training."""
    config = TrainerConfig.model_validate(job.config)
    layout = Layout(config)
    strategy = Single(torch.device("cpu"), contextlib.nullcontext, scales_loss=False)
    strategy.wrap(model, lambda named: torch.optim.SGD([parameter for _, parameter in named]))
    weights.save_trained(model, strategy, config, layout, TrainResult(steps=1, seconds=1), keep=True)
    return layout


def test_frozen_parameters_and_buffers_are_saved(job: Callable[..., Job], tiny_model: Path) -> None:
    saved = load_file(save(load(tiny_model), job(method={"full": {}})).trained / "model.safetensors")
    assert set(saved) == weights.tensor_names(tiny_model) | {"model.correction"}
    assert saved["model.correction"].tolist() == [7.0, 7.0]


def test_incomplete_weights_are_not_published(
    job: Callable[..., Job], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = weights.gather
    monkeypatch.setattr(weights, "gather", lambda *args, **options: gather(*args, **{**options, "whole": False}))
    made = job(method={"full": {}})
    with pytest.raises(StageError, match=r"model\.norm\.weight among them, are missing") as caught:
        save(load(tiny_model), made)
    assert caught.value.code is ExitCode.INTERNAL
    assert list(made.work.iterdir()) == []


def test_a_base_that_holds_tied_and_unknown_tensors(tiny_model: Path, tmp_path: Path) -> None:
    base, written = tmp_path / "base", tmp_path / "written"
    for directory, names in ((base, ["embed.weight", "head.weight", "old.cache"]), (written, ["embed.weight"])):
        directory.mkdir()
        save_file({name: torch.ones(1) for name in names}, directory / "model.safetensors")
    weights.check_complete(Net(), base, written)
