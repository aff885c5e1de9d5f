"""LLaMA-Adapter: trained tokens that attention reads through a gate which starts at 0."""

from typing import Any

from tunewright_api.method import AdapterMethod


def adapter_arguments(method: AdapterMethod, layers: int) -> dict[str, Any]:
    """Keyword arguments of peft.AdaptionPromptConfig for a model with this many layers."""
    return {
        "task_type": "CAUSAL_LM",
        "adapter_len": method.adapter_len,
        "adapter_layers": layers if method.adapter_layers is None else method.adapter_layers,
    }
