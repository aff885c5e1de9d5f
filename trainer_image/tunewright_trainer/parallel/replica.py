"""A whole copy of the model in this process: its trainable state, and what is exported of it."""

from typing import Any

import torch
from torch import Tensor, nn

from tunewright_trainer.parallel.update import Update


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters (tied ones once) and persistent buffers, by name."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return parameters | persistent_buffers(model)


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the model's weights, by name."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def restore_trainable(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a `trainable_state` into the model."""
    with torch.no_grad():
        for name, tensor in trainable_state(model).items():
            tensor.copy_(state[name])


def replica_state(model: nn.Module, update: Update) -> dict[str, Any]:
    """Weights, optimizer and loss scale."""
    return {"model": trainable_state(model), **update.state()}


def restore_replica(model: nn.Module, update: Update, state: dict[str, Any]) -> None:
    """Take back a `replica_state`."""
    restore_trainable(model, state["model"])
    update.restore(state)
