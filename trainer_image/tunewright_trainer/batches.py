"""Prepared records -> one micro batch, the same in training and evaluation."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from tunewright_trainer.data.packing import pack
from tunewright_trainer.data.store import Answer, PreparedRecord
from tunewright_trainer.objectives.objective import IGNORED, Batch

__all__ = ["IGNORED", "Packing", "labels", "make_batch", "padded"]


class Packing(Enum):
    """How records share rows.

    NONE: a row each, padded on the right to the longest of the micro batch.
    ROWS: as few rows of that length as hold them. transformers builds the block-diagonal mask from position_ids that
        begin anew (`masking_utils.find_packed_sequence_indices`), for SDPA, eager attention and sliding windows.
    FLAT: one row without padding, with the cumulative lengths that FlashAttention's variable-length kernel takes.
    """

    NONE = "None"
    ROWS = "Rows"
    FLAT = "Flat"


def labels(record: PreparedRecord | Answer) -> list[int]:
    """Shape (length,): the token id where the assistant wrote it, else IGNORED."""
    result = [IGNORED] * len(record.ids)
    for start, end in record.spans:
        result[start:end] = record.ids[start:end]
    return result


def make_batch(records: Sequence[PreparedRecord], packing: Packing = Packing.NONE) -> Batch:
    """One micro batch on the CPU.

    Of preference pairs the chosen answers come first, then the rejected ones in the same order, a row each; units
    counts pairs. Else units counts the tokens that are predicted: labels but for the first of each record, which
    nothing precedes.
    """
    pairs = [record.rejected for record in records if record.rejected]
    if pairs:
        inputs, expected = padded([*records, *pairs])
        units = len(pairs)
    elif packing is Packing.NONE:
        inputs, expected = padded(records)
        units = int((expected[:, 1:] != IGNORED).sum())
    else:
        inputs, expected = _packed(records, packing)
        units = int((expected != IGNORED).sum())
    tokens = sum(len(record.ids) for record in records) + sum(len(pair.ids) for pair in pairs)
    return Batch(inputs=inputs, labels=expected, units=units, tokens=tokens, samples=len(records))


def padded(records: Sequence[PreparedRecord | Answer]) -> tuple[dict[str, Any], Tensor]:
    """A row each, padded on the right to the longest: (the model's inputs, labels), of shape (rows, longest)."""
    longest = max(len(record.ids) for record in records)

    def pad(rows: Iterable[list[int]], filler: int) -> Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])

    inputs: dict[str, Any] = {
        "input_ids": pad((record.ids for record in records), 0),
        "attention_mask": pad(([1] * len(record.ids) for record in records), 0),
    }
    return inputs, pad(map(labels, records), IGNORED)


def _packed(records: Sequence[PreparedRecord], packing: Packing) -> tuple[dict[str, Any], Tensor]:
    lengths = [len(record.ids) for record in records]
    width = sum(lengths) if packing is Packing.FLAT else max(lengths)
    rows = [list(range(len(records)))] if packing is Packing.FLAT else pack(lengths, width)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    positions = torch.zeros_like(ids)
    expected = torch.full_like(ids, IGNORED)
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            end = start + lengths[number]
            ids[row, start:end] = torch.tensor(records[number].ids)
            positions[row, start:end] = torch.arange(lengths[number])
            expected[row, start:end] = torch.tensor(labels(records[number]))
            expected[row, start] = IGNORED  # what stands before it is of another record
            start = end
        positions[row, start:] = torch.arange(width - start)
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    if packing is Packing.FLAT:
        ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        inputs |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    return inputs, expected
