"""Loss of a model on records, and perplexity."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tunewright_trainer.data.store import PreparedRecord

MAX_PERPLEXITY = 1e30
"""exp(loss) of a broken model overflows; JSON has no infinity."""

LOGITS = 1 << 27
"""Logits of a batch: 512 MiB in fp32. A long record of a large vocabulary has more, and is a batch alone."""
TOKENS = 8192
"""Tokens of a batch, padded: a small vocabulary must not make it endless."""


def perplexity(loss: float) -> float:
    """exp of the mean negative log-likelihood per token."""
    return math.exp(loss) if loss < math.log(MAX_PERPLEXITY) else MAX_PERPLEXITY


def evaluate_loss(model: Any, records: Sequence[PreparedRecord]) -> float:
    """Mean negative log-likelihood per assistant token, in nats, over all records. No gradients are kept."""
    import torch

    total, count = 0.0, 0
    ordered = sorted(records, key=lambda record: len(record.ids))
    vocabulary = model.config.get_text_config().vocab_size
    with torch.inference_mode():
        for start, end in batches([len(record.ids) for record in ordered], min(TOKENS, LOGITS // vocabulary)):
            nats, tokens = _loss_sum(model, ordered[start:end])
            total, count = total + nats, count + tokens
    return total / count


def _loss_sum(model: Any, records: Sequence[PreparedRecord]) -> tuple[float, int]:
    """(nats, tokens) of one batch, whose logits, at the counted positions alone, are gone when it returns."""
    from tunewright_trainer.batches import IGNORED, padded
    from tunewright_trainer.objectives.forward import predict
    from tunewright_trainer.objectives.likelihood import cross_entropy_sum
    from tunewright_trainer.objectives.objective import Batch

    inputs, labels = padded(records)
    units, tokens = int((labels[:, 1:] != IGNORED).sum()), sum(len(record.ids) for record in records)
    there = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    found = predict(model, Batch(there, labels.to(model.device), units=units, tokens=tokens, samples=len(records)))
    return cross_entropy_sum(found.logits, found.targets).item(), units


def batches(lengths: Sequence[int], tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges (start, end) of records, at least one each, that hold at most `tokens` once padded to the longest.

    Args:
        lengths: Tokens of the records, in ascending order.
        tokens: Of a batch.
    """
    start = 0
    for end, length in enumerate(lengths):
        if end > start and (end + 1 - start) * length > tokens:
            yield start, end
            start = end
    if lengths:
        yield start, len(lengths)
