"""spec.hyperparameters -> the optimizer."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_trainer.optim.groups import decay_groups


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], hyperparameters: Hyperparameters, device: str
) -> Optimizer:
    """AdamW over the trainable parameters (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Args:
        named_parameters: Frozen ones are left out.
        hyperparameters: Weight decay and the peak learning rate; the loop sets each step's own rate.
        device: cpu or cuda.
    """
    groups = decay_groups(named_parameters, hyperparameters.weight_decay)
    return torch.optim.AdamW(groups, lr=hyperparameters.learning_rate, fused=True)
