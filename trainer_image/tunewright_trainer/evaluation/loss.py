"""Loss of a model on records, and perplexity."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tunewright_trainer.data.store import PreparedRecord

MAX_PERPLEXITY = 1e30
"""exp(loss) of a broken model overflows; JSON has no infinity."""

_BATCH = 8


def perplexity(loss: float) -> float:
    """exp of the mean negative log-likelihood per token."""
    return math.exp(loss) if loss < math.log(MAX_PERPLEXITY) else MAX_PERPLEXITY


def evaluate_loss(model: Any, records: Sequence[PreparedRecord]) -> float:
    """Mean negative log-likelihood per assistant token, in nats, over all records. No gradients are kept."""
    import torch

    from tunewright_trainer.batches import IGNORED, padded

    total, count = 0.0, 0
    ordered = sorted(records, key=lambda record: len(record.ids))
    with torch.inference_mode():
        for rows in chunks(ordered, _BATCH):
            inputs, expected = padded(rows)
            targets = expected[:, 1:].to(model.device)
            logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits[:, :-1]
            wanted = targets != IGNORED
            total += torch.nn.functional.cross_entropy(logits[wanted].float(), targets[wanted], reduction="sum").item()
            count += int(wanted.sum())
    return total / count


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """`size` items at a time; the last chunk may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
