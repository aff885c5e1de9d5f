"""The two models that are compared."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.layout import Layout
from tunewright_trainer.methods.load import load_model
from tunewright_trainer.methods.tuned import load_tuned


def models(config: TrainerConfig, layout: Layout) -> Iterator[tuple[str, Any]]:
    """("base", model) and ("tuned", model), one at a time; an adapter loads the base once.

    Weights are those that will be served; a CPU computes with them in float32, a GPU in their own dtype.
    """
    loaded = [_load(layout.base_model, layout.base_model)]
    yield "base", loaded[0]
    if config.method.full is not None:
        loaded.clear()

    def load(path: Path) -> Any:
        return loaded.pop() if path == layout.base_model else _load(path, layout.base_model)

    yield "tuned", load_tuned(config, layout, load).eval()


def limit_threads() -> None:
    """As many threads as the container has CPUs."""
    import torch

    from tunewright_trainer.launch import available_cpus, read_cpu_max

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cpus(len(os.sched_getaffinity(0)), read_cpu_max()))


def _load(path: Path, base: Path) -> Any:
    import torch
    from transformers import GenerationConfig

    cuda = torch.cuda.is_available()
    model = load_model(path, dtype="auto" if cuda else torch.float32)
    with contextlib.suppress(OSError):
        # The base's end-of-turn tokens; its sampling defaults do not apply to greedy answers.
        settings = GenerationConfig.from_pretrained(base)
        model.generation_config = GenerationConfig(
            bos_token_id=settings.bos_token_id, eos_token_id=settings.eos_token_id, pad_token_id=settings.pad_token_id
        )
    return model.to("cuda" if cuda else "cpu").eval()
