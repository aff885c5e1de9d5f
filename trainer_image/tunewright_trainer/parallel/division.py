"""Which decoder layers each stage of a pipeline holds, and which models can be divided. Pure: no torch."""

import json
from itertools import pairwise
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError

PIPELINED = frozenset({"llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
"""Values of `model_type` in config.json of models that compute nothing between their embedding and their first layer,
nor between their last layer and their last norm (see `stages.StageModel`)."""


def divide(layers: int, stages: int) -> list[range]:
    """Which decoder layers each stage holds: consecutive ones, as equal in number as can be.

    The first stages get what is left over, because the last one has the head to compute.

    Raises:
        StageError: INVALID_CONFIG when a stage would have none.
    """
    if stages > layers:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"distributed.pipeline.stages is {stages}, but the model has {layers} decoder layers: use {layers} stages "
            "or fewer",
        )
    size, more = divmod(layers, stages)
    ends = [stage * size + min(stage, more) for stage in range(stages + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def check_type(model_type: str) -> None:
    """Refuse to divide what `StageModel` would compute wrongly.

    Raises:
        StageError: INVALID_CONFIG.
    """
    if model_type not in PIPELINED:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"distributed.pipeline cannot divide a model of type {model_type}, only {', '.join(sorted(PIPELINED))}: "
            "use ddp, deepspeed or fsdp",
        )


def check_division(config: TrainerConfig, model: Path) -> None:
    """Whether the model in a directory can be divided as spec.distributed says; before any GPU is queued.

    Raises:
        StageError: INVALID_CONFIG.
    """
    if config.distributed is None or config.distributed.pipeline is None:
        return
    described = json.loads((model / "config.json").read_text())
    check_type(str(described.get("model_type")))
    divide(int(described["num_hidden_layers"]), config.distributed.pipeline.stages)
