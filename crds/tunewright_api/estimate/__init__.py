"""How much memory a training run needs on each device, before anything is started. Pure: no torch.

    shape = read_shape(json.loads(Path("config.json").read_text()))
    estimate = estimate_memory(shape, read_settings(method, hyperparameters, distributed, processes=16, gpu=True))

The operator, the command line and the trainer call it; docs/reference/memory.md compares it with measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunewright_api.estimate.advice import Advice, advise
from tunewright_api.estimate.memory import Memory, compute_memory, trainable_parameters
from tunewright_api.estimate.settings import Settings, Shard, States, Train
from tunewright_api.estimate.shape import ModelShape, UnknownModelError, read_shape
from tunewright_api.estimate.spec import read_settings

__all__ = [
    "Advice",
    "Estimate",
    "Memory",
    "ModelShape",
    "Settings",
    "Shard",
    "States",
    "Train",
    "UnknownModelError",
    "estimate_memory",
    "read_settings",
    "read_shape",
]


@dataclass(frozen=True)
class Estimate:
    """The answer.

    Attributes:
        memory: Bytes per device, by part.
        advice: Changes that would save memory, the best first.
        parameters: Weights of the model.
        trainable: Numbers that are trained.
        shortages: What the job's pods ask for too little of, each in a sentence; known for a whole job only.
    """

    memory: Memory
    advice: tuple[Advice, ...]
    parameters: int
    trainable: int
    shortages: tuple[str, ...] = ()

    def fits(self, device_bytes: int) -> bool:
        """Whether a device with this much memory is large enough."""
        return self.memory.total <= device_bytes


def estimate_memory(shape: ModelShape, settings: Settings) -> Estimate:
    """Memory per device of a run with these settings."""
    return Estimate(
        compute_memory(shape, settings),
        advise(shape, settings),
        shape.parameters,
        trainable_parameters(shape, settings),
    )
