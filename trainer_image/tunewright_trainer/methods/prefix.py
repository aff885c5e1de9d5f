"""Prefix tuning: trained keys and values in front of those of the text."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tunewright_api.method import PrefixTuningMethod


def prefix_arguments(method: PrefixTuningMethod) -> dict[str, Any]:
    """Keyword arguments of peft.PrefixTuningConfig.

    Keys and values start at 0: at random ones a chat model forgets how to speak, and most of the training is spent on
    learning it anew.
    """
    return {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": method.num_virtual_tokens,
        "prefix_projection": method.projection_size is not None,
        "encoder_hidden_size": method.projection_size,
        "init_weights": "zero",
    }


def prefix_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What peft reads: the prefix itself, of shape (virtual tokens, 2 x layers x width of keys).

    Args:
        state: The trained tensors of a prefix-tuned model by name, gathered: its embedding, and the two linear layers
            of the projection if it has one (embedding -> linear -> tanh -> linear).
    """
    tensors = {name.rpartition("prompt_encoder.default.")[2]: tensor.float() for name, tensor in state.items()}
    prefix = tensors["embedding.weight"]
    if "transform.0.weight" in tensors:
        hidden = torch.tanh(prefix @ tensors["transform.0.weight"].T + tensors["transform.0.bias"])
        prefix = hidden @ tensors["transform.2.weight"].T + tensors["transform.2.bias"]
    return {"prompt_embeddings": prefix.contiguous()}
