"""The trained weights, gathered from all ranks and written by rank 0: `trained/`, complete or absent."""

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.files import replace_directory
from tunewright_trainer.layout import Layout


def save_trained(trainer: Any, config: TrainerConfig, layout: Layout, result: TrainResult) -> None:
    """Write the adapter (LoRA) or the full weights in the base model's own dtype, and the result beside them."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    rank_zero = trainer.args.process_index == 0
    dtype = None if config.method.lora else base_dtype(layout.base_model)
    state = gather(model, keep=rank_zero, dtype=dtype)
    if rank_zero:
        with replace_directory(layout.trained) as directory:
            model.save_pretrained(directory, state_dict=state, max_shard_size=config.export.max_shard_size)
            if not config.method.lora:
                # Training changes weights only: what describes the model stays byte for byte that of the base.
                shutil.copyfile(layout.base_model / "config.json", directory / "config.json")
            (directory / layout.train_result.name).write_text(result.model_dump_json(by_alias=True))
    if dist.is_initialized():
        dist.barrier()


def gather(model: torch.nn.Module, keep: bool, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Trained parameters by name, on the CPU; every rank takes part, the ranks with `keep` get them.

    One parameter at a time, so that under ZeRO-3 no device ever holds the whole model.
    """
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        with _whole(parameter):
            if keep:
                state[name] = parameter.detach().to(device="cpu", dtype=dtype or parameter.dtype).clone()
    return state


def base_dtype(model: Path) -> torch.dtype:
    """The dtype that a model directory's configuration declares (bfloat16 when it does not)."""
    from transformers import AutoConfig

    declared = getattr(AutoConfig.from_pretrained(model), "dtype", None)
    return declared if isinstance(declared, torch.dtype) else torch.bfloat16


def _whole(parameter: torch.nn.Parameter) -> Any:
    import contextlib

    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])
