"""An adapter on disk, as peft reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tunewright_api.method import Method
from tunewright_trainer.methods.prefix import prefix_tensors


def save_adapter(model: Any, state: Mapping[str, Tensor], method: Method, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors.

    Args:
        model: The PeftModel that was trained; only its description is read, since its weights may be elsewhere.
        state: Its trained tensors by name, gathered.
        method: How it was trained.
        directory: Exists.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    description = model.peft_config["default"]
    if method.prefix_tuning is not None:
        tensors = prefix_tensors(state)
    else:
        tensors = get_peft_model_state_dict(model, state_dict=dict(state), save_embedding_layers=False)
    training, description.inference_mode = description.inference_mode, True
    description.save_pretrained(str(directory))
    description.inference_mode = training
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        directory / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
