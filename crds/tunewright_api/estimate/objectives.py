"""Bytes that an objective holds from the first step to the last, in every process."""

from tunewright_api.estimate.settings import Settings, Train, width
from tunewright_api.estimate.shape import ModelShape

_FP32 = 4


def held_bytes(shape: ModelShape, settings: Settings, trained: int) -> int:
    """The teacher's weights, and what EWC remembers of the weights that are trained.

    Args:
        shape: The base model.
        settings: The run.
        trained: Numbers that the optimizer changes.
    """
    teacher = width(settings) * settings.teacher.parameters if settings.teacher else 0
    return teacher + (ewc_bytes(shape, settings, trained) if settings.ewc else 0)


def ewc_bytes(shape: ModelShape, settings: Settings, trained: int) -> int:
    """F and w* of lambda / 2 x sum of F (w - w*)^2 (Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3), in fp32.

    With LoRA w - w* is the adapter's product, which needs no w*, and F is that of the base weight that it is added to.
    """
    if settings.train is Train.FULL:
        return 2 * _FP32 * trained
    return _FP32 * shape.layers * sum(_adapted(shape, settings))


def penalty_working_bytes(shape: ModelShape, settings: Settings) -> int:
    """What the penalty of one tensor computes with. It is the first of the backward pass.

    For a weight of its own one difference; for LoRA the adapter's product, F times it, and the gradients of both.
    """
    if not settings.ewc:
        return 0
    if settings.train is Train.FULL:
        return _FP32 * max(shape.embedding_parameters, *_matrices(shape))
    return 4 * _FP32 * max(_adapted(shape, settings), default=0)


def _adapted(shape: ModelShape, settings: Settings) -> list[int]:
    """Weights of each matrix of a layer that has an adapter."""
    wanted = settings.targets or frozenset(shape.linears)
    return [inputs * outputs for name, (inputs, outputs) in shape.linears.items() if name in wanted]


def _matrices(shape: ModelShape) -> list[int]:
    return [inputs * outputs for inputs, outputs in shape.linears.values()]
