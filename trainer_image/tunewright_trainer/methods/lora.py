"""LoRA, DoRA and rsLoRA: low-rank matrices beside the linear layers."""

from typing import Any

from tunewright_api.method import LoraMethod


def lora_arguments(method: LoraMethod) -> dict[str, Any]:
    """Keyword arguments of peft.LoraConfig."""
    return {
        "task_type": "CAUSAL_LM",
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": list(method.target_modules) if method.target_modules else "all-linear",
        "use_dora": method.use_dora,
        "use_rslora": method.use_rslora,
        "bias": "none",
    }
