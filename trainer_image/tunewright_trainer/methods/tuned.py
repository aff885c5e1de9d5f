"""The model that training made, as it is served: evaluation judges it, and export writes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.layout import Layout
from tunewright_trainer.methods import qlora
from tunewright_trainer.precision import weights_dtype
from tunewright_trainer.pruning import prune


def load_tuned(config: TrainerConfig, layout: Layout, load: Callable[[Path], Any]) -> Any:
    """Base and training put together, and pruned if export prunes.

    LoRA is merged, W + s B A, also where only the adapter is exported: generation pays for two small matrices per layer
    otherwise. What cannot be merged is a PeftModel around the base.

    Args:
        config: The run.
        layout: Where base and trained weights are.
        load: Loads the model of a directory, in the dtype and on the device that it is wanted in. It is changed.
    """
    if config.method.full is not None:
        model = load(layout.trained)
    else:
        model = _with_adapter(load(layout.base_model), config, layout.trained)
    if config.export.pruning is not None:
        prune(model, config.export.pruning)
    return model


def _with_adapter(base: Any, config: TrainerConfig, adapter: Path) -> Any:
    from peft import PeftModel

    if config.method.qlora is not None:
        qlora.round_trip(base, config.method.qlora, getattr(torch, weights_dtype(config)))
    tuned = PeftModel.from_pretrained(base, str(adapter))
    return tuned.merge_and_unload() if config.method.low_rank is not None else tuned
