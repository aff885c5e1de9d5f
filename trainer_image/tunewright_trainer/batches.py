"""Prepared records -> tensors, the same in training and evaluation."""

from collections.abc import Sequence

import torch

from tunewright_trainer.data.store import PreparedRecord

IGNORED = -100
"""Label of a position that the loss does not count (torch.nn.CrossEntropyLoss.ignore_index)."""


def labels(record: PreparedRecord) -> list[int]:
    """Shape (length,): the token id where the assistant wrote it, else IGNORED."""
    result = [IGNORED] * len(record.ids)
    for start, end in record.spans:
        result[start:end] = record.ids[start:end]
    return result


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad to the longest row, on the right: tensors of shape (rows, longest)."""
    longest = max(len(row["input_ids"]) for row in rows)

    def pad(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (longest - len(values))

    return {
        "input_ids": torch.tensor([pad(row["input_ids"], 0) for row in rows]),
        "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows]),
        "labels": torch.tensor([pad(row["labels"], IGNORED) for row in rows]),
    }
