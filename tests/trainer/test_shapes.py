"""The parameters that the estimate counts, against those of transformers' own models of each family."""

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright_api.estimate import UnknownModelError, read_shape

COUNTED = """
    apertus arcee biogpt bloom codegen cohere falcon gemma2 gemma3_text gpt2 gpt_neox gptj granite llama mistral olmo2
    opt persimmon phi phi3 qwen2 qwen3 smollm3 starcoder2
"""
REFUSED = """
    bamba deepseek_v3 ernie4_5_moe falcon_h1 gpt_oss jamba lfm2 llama4_text mamba mixtral qwen2_moe qwen3_moe qwen3_next
    recurrent_gemma zamba2
"""


def described(family: str, **cut: int) -> tuple[Any, dict[str, Any]]:
    """transformers' default configuration of a family, and the config.json that it writes."""
    config = AutoConfig.for_model(family, **cut)
    return config, json.loads(config.to_json_string(use_diff=True))


@pytest.mark.parametrize("family", COUNTED.split())
def test_the_shape_has_the_parameters_of_the_model(family: str) -> None:
    config, written = described(family, num_hidden_layers=4)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert read_shape(written).parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.05)


@pytest.mark.parametrize("family", REFUSED.split())
def test_a_family_with_other_layers_has_no_estimate(family: str) -> None:
    with pytest.raises(UnknownModelError):
        read_shape(described(family)[1])
