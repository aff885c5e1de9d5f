"""The memory estimate of a run, from its configuration and the base model's config.json. Needs no torch."""

import json
from pathlib import Path

from tunewright_api.estimate import Advice, Estimate, ModelShape, estimate_memory, read_settings, read_shape
from tunewright_api.results import MemoryEstimate
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.layout import Layout

SHOWN = 3
"""Settings that are named where memory is short."""


def estimate_run(config: TrainerConfig, *, gpu: bool) -> Estimate:
    """Memory per device.

    Raises:
        OSError: There is no config.json.
        ValueError: It is not that of a model that can be estimated.
    """
    rendezvous, teacher = config.rendezvous, config.objective_inputs.teacher
    shape = _shape(Layout(config).base_model)
    settings = read_settings(
        config.method,
        config.hyperparameters,
        config.distributed,
        processes=rendezvous.nodes * rendezvous.processes_per_node,
        gpu=gpu,
        objective=config.objective,
        teacher=_shape(Path(teacher)) if teacher else None,
    )
    return estimate_memory(shape, settings)


def _shape(model: Path) -> ModelShape:
    return read_shape(json.loads((model / "config.json").read_bytes()))


def report_estimate(config: TrainerConfig) -> MemoryEstimate | None:
    """What prepare says of it; None for a model that is not estimated."""
    try:
        estimate = estimate_run(config, gpu=config.rendezvous.gpus_per_node > 0)
    except ValueError as error:
        log.info(f"no memory estimate: {error}")
        return None
    log.info(
        "memory estimate per device",
        bytes=estimate.memory.total,
        moment=estimate.memory.moment.value,
        trainableParameters=estimate.trainable,
        **estimate.memory.parts(),
    )
    return MemoryEstimate(device_bytes=estimate.memory.total, advice=[describe(one) for one in estimate.advice[:SHOWN]])


def describe(advice: Advice) -> str:
    """`hyperparameters.gradientCheckpointing: true (about 12.3 GiB less)`."""
    return f"{advice.setting} (about {gib(advice.saves)} less)"


def gib(count: int) -> str:
    """Bytes as GiB."""
    return f"{count / 2**30:.1f} GiB"
