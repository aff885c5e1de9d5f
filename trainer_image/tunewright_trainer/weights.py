"""The trained weights, gathered from all ranks and written by rank 0: `trained/`, complete or absent."""

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunewright_api.names import ExitCode
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.files import replace_directory
from tunewright_trainer.layout import Layout
from tunewright_trainer.methods.save import save_adapter
from tunewright_trainer.parallel.strategy import Strategy


def save_trained(
    model: Any, strategy: Strategy, config: TrainerConfig, layout: Layout, result: TrainResult, *, keep: bool
) -> None:
    """Write the adapter or the full weights in the base model's own dtype, and the result beside them.

    Args:
        model: What was trained, as it was handed to the strategy.
        strategy: Gathers the tensors; all ranks take part.
        config: The run.
        layout: Where to.
        result: Written as train.json.
        keep: Whether this rank writes.
    """
    full = config.method.full is not None
    state = strategy.gather(keep=keep, dtype=base_dtype(layout.base_model) if full else None, whole=full)
    if not keep:
        return
    with replace_directory(layout.trained) as directory:
        if not full:
            save_adapter(model, state, config.method, directory)
        else:
            model.save_pretrained(directory, state_dict=state, max_shard_size=config.export.max_shard_size)
            # Training changes weights only: what describes the model stays byte for byte that of the base.
            shutil.copyfile(layout.base_model / "config.json", directory / "config.json")
            check_complete(model, layout.base_model, directory)
        (directory / layout.train_result.name).write_text(result.model_dump_json(by_alias=True))


def gather(model: torch.nn.Module, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU, tied ones once; every rank takes part, the ranks with `keep` get them.

    One parameter at a time, so that under ZeRO-3 and FSDP no device ever holds the whole model.

    Args:
        model: What was trained.
        keep: Whether this rank wants the tensors.
        dtype: Of the parameters; their own one without it. Buffers keep theirs.
        whole: Also what training does not change: frozen parameters and persistent buffers.
    """
    state: dict[str, torch.Tensor] = {}
    for (name, *_), tensor in _tensors(model):
        parameter = isinstance(tensor, torch.nn.Parameter)
        if not (whole or tensor.requires_grad):
            continue
        with _whole(tensor) as complete:
            if keep:
                wanted = dtype if dtype and parameter and tensor.is_floating_point() else tensor.dtype
                state[name] = complete.detach().to(device="cpu", dtype=wanted).clone()
    return state


def check_complete(model: torch.nn.Module, base: Path, written: Path) -> None:
    """Compare the names of the tensors in two directories: what the base has and the model uses must be written.

    A tied tensor may be written under another of its names. Names that the model does not know are none of its own:
    it did not load them, or renamed them while loading.

    Raises:
        StageError: INTERNAL, naming a tensor that is missing.
    """
    have, expected = tensor_names(written), tensor_names(base)
    lost = sorted(name for names, _ in _tensors(model) if have.isdisjoint(names) for name in names if name in expected)
    if lost:
        raise StageError(
            ExitCode.INTERNAL,
            f"{len(lost)} tensors of the base model, {lost[0]} among them, are missing from the trained weights: this "
            "architecture is not saved completely, so report it as a bug; method.lora does not depend on it",
        )


def tensor_names(directory: Path) -> set[str]:
    """Names of the tensors in a directory's safetensors files."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    return names


def _tensors(model: torch.nn.Module) -> list[tuple[list[str], torch.Tensor]]:
    """Parameters and persistent buffers, each with all of its names (tied tensors have several)."""
    tensors = {}
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor):
            tensors[id(tensor)] = tensor
            names[id(tensor)].append(name)
    return [(names[key], tensor) for key, tensor in tensors.items()]


def base_dtype(model: Path) -> torch.dtype:
    """The dtype that a model directory's configuration declares (bfloat16 when it does not)."""
    from transformers import AutoConfig

    declared = getattr(AutoConfig.from_pretrained(model), "dtype", None)
    return declared if isinstance(declared, torch.dtype) else torch.bfloat16


@contextlib.contextmanager
def _whole(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """A tensor that may be divided among processes, in one piece."""
    if hasattr(tensor, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            yield tensor
    elif hasattr(tensor, "full_tensor"):
        # FSDP's DTensor, whose import a single process is spared. Shards that wait in CPU memory are exchanged where
        # the others are.
        yield tensor.detach().to(tensor.device_mesh.device_type).full_tensor()
    else:
        yield tensor
