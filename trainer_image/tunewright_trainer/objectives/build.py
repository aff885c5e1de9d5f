"""spec.objective -> what the loop minimises."""

from __future__ import annotations

import torch
from torch import nn

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.layout import Layout
from tunewright_trainer.objectives.objective import Objective
from tunewright_trainer.objectives.supervised import Supervised


def build_objective(config: TrainerConfig, layout: Layout, model: nn.Module, device: torch.device) -> Objective:
    """The objective of a run.

    All ranks call it together, before the strategy wraps the model and before a checkpoint is restored: here the model
    still is what training starts from.

    Args:
        config: The run.
        layout: Where prepare left what the objective needs.
        model: The base model with its adapters, if any.
        device: Where the model computes.
    """
    return Supervised()
