"""spec.hyperparameters -> the optimizer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.hyperparameters import Optimizer as OptimizerName
from tunewright_trainer.methods.qlora import silence
from tunewright_trainer.optim.groups import decay_groups

_EMBEDDINGS = ("embed", "wte", "wpe")
"""Parts of names of embeddings: embed_tokens, word_embeddings, embed_in; wte and wpe as in GPT-2, GPT-J and MPT."""

EMBEDDING_BITS = 32
"""Bits of the moments of embeddings: their gradients are sparse and uneven, and 8 bits make training unstable
(Dettmers et al. 2022, arXiv:2110.02861, section 2.3)."""


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], hyperparameters: Hyperparameters, device: str
) -> Optimizer:
    """AdamW over the trainable parameters (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Args:
        named_parameters: Frozen ones are left out.
        hyperparameters: Which AdamW, its weight decay, and the peak learning rate; the loop sets each step's own rate.
        device: cpu or cuda.
    """
    named = list(named_parameters)
    groups = decay_groups(named, hyperparameters.weight_decay)
    if hyperparameters.optimizer is OptimizerName.ADAMW:
        return torch.optim.AdamW(groups, lr=hyperparameters.learning_rate, fused=True)
    optimizer = _eight_bit(hyperparameters.optimizer, device)(groups, lr=hyperparameters.learning_rate)
    _keep_embeddings_exact(named)
    return optimizer


def _eight_bit(name: OptimizerName, device: str) -> Any:
    """The class in bitsandbytes. A CPU has nothing to page out to, so there both are the plain one."""
    silence()
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    return PagedAdamW8bit if name is OptimizerName.PAGED_ADAMW_8BIT and device != "cpu" else AdamW8bit


def _keep_embeddings_exact(named: Iterable[tuple[str, nn.Parameter]]) -> None:
    from bitsandbytes.optim import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    for name, parameter in named:
        if parameter.requires_grad and any(part in name for part in _EMBEDDINGS):
            manager.override_config(parameter, "optim_bits", EMBEDDING_BITS)
