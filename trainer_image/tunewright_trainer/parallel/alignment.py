"""Micro batches of one shape: the stages of a pipeline exchange tensors of one shape throughout a step."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError
from tunewright_trainer.objectives.objective import IGNORED, Batch

_PADDED = frozenset({"input_ids", "attention_mask", "position_ids"})
"""Inputs of shape (rows, length). They are filled with 0: what is added stands on the right or in rows of its own, so
nothing attends to it; position_ids that do not rise begin a new sequence at each token."""

_ENDS = ("cu_seq_lens_q", "cu_seq_lens_k")
_LONGEST = ("max_length_q", "max_length_k")
"""Inputs of FlashAttention's variable-length kernel: cumulative lengths of the sequences of one row; the longest."""


class Shape(NamedTuple):
    """Of every micro batch of a step."""

    rows: int
    length: int


def common_shape(micro_batches: Iterable[Batch]) -> Shape:
    """As many rows, and rows as long, as the largest micro batch has.

    Raises:
        StageError: INVALID_CONFIG for an input of the model that nobody has said how to lengthen.
    """
    rows = length = 0
    for batch in micro_batches:
        if unknown := sorted(set(batch.inputs) - _PADDED - {*_ENDS, *_LONGEST}):
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"distributed.pipeline cannot lengthen the model's input {unknown[0]}: use ddp, deepspeed or fsdp",
            )
        rows, length = max(rows, batch.labels.shape[0]), max(length, batch.labels.shape[1])
    return Shape(rows, length)


def aligned(batch: Batch, shape: Shape) -> Batch:
    """The same micro batch in a shape that is not smaller."""
    rows, length = shape
    inputs: dict[str, Any] = {
        name: _filled(value, rows, length, 0) if name in _PADDED else value for name, value in batch.inputs.items()
    }
    more = length - batch.labels.shape[1]
    if more:
        # What is added to the one row of all sequences is a sequence of its own.
        inputs |= {name: torch.cat([inputs[name], inputs[name][-1:] + more]) for name in _ENDS if name in inputs}
        inputs |= {name: max(inputs[name], more) for name in _LONGEST if name in inputs}
    return replace(batch, inputs=inputs, labels=_filled(batch.labels, rows, length, IGNORED))


def _filled(tensor: Tensor, rows: int, length: int, filler: int) -> Tensor:
    grown = tensor.new_full((rows, length), filler)
    grown[: tensor.shape[0], : tensor.shape[1]] = tensor
    return grown
