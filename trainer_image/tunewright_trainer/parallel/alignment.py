"""Micro batches of one shape: the stages of a pipeline exchange tensors of one shape throughout a step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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


def aligned(micro_batches: Sequence[Batch]) -> list[Batch]:
    """The same micro batches with as many rows, and rows as long, as the largest of them has.

    Raises:
        StageError: INVALID_CONFIG for an input of the model that nobody has said how to lengthen.
    """
    names = {name for batch in micro_batches for name in batch.inputs}
    if unknown := sorted(names - _PADDED - {*_ENDS, *_LONGEST}):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"distributed.pipeline cannot lengthen the model's input {unknown[0]}: use ddp, deepspeed or fsdp",
        )
    rows = max(batch.labels.shape[0] for batch in micro_batches)
    length = max(batch.labels.shape[1] for batch in micro_batches)
    return [_grown(batch, rows, length) for batch in micro_batches]


def _grown(batch: Batch, rows: int, length: int) -> Batch:
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
