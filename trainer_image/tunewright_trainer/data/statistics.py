"""What the data is like: for the report, and for `check-data`. Pure but for reading the records."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright_trainer.data import store
from tunewright_trainer.data.build import TRAIN, VALIDATION, Built
from tunewright_trainer.data.split import sample
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.data.tokens import ChatEncoder

EXAMPLES = 3
_CHARACTERS = 4000


def describe(directory: Path, built: Built, encoder: ChatEncoder, seed: int) -> dict[str, Any]:
    """Content of report.json: the account, figures of the lengths in tokens, and three records as text, each a list of
    segments that say whether the loss counts them."""
    train, validation = store.read(directory / TRAIN), store.read(directory / VALIDATION)
    lengths = np.concatenate([train.lengths, validation.lengths])
    parts = [account.to_dict() for account in built.accounts]
    return {
        "rows": built.account.to_dict(),
        **({"parts": parts} if len(parts) > 1 else {}),
        "duplicates": built.duplicates,
        "heldOutWithTrainedPrompt": built.shared_prompts,
        "tokens": {
            "all": int(lengths.sum()),
            "shortest": int(lengths.min()),
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "longest": int(lengths.max()),
        },
        "lengths": histogram(lengths),
        "examples": [_rendered(record, encoder) for record in sample(train, EXAMPLES, seed)],
    }


def histogram(lengths: NDArray[np.int64]) -> dict[str, int]:
    """Records by length in tokens: `1-16`, `17-32`, … up to the longest; each range twice the one before."""
    counts: dict[str, int] = {}
    low, high = 1, 16
    while low <= lengths.max():
        counts[f"{low}-{high}"] = int(((low <= lengths) & (lengths <= high)).sum())
        low, high = high + 1, high * 2
    return counts


def _rendered(record: PreparedRecord, encoder: ChatEncoder) -> dict[str, Any]:
    segments, at = [], 0
    for start, end in [*record.spans, (len(record.ids), len(record.ids))]:
        for first, last, counted in ((at, start, False), (start, end, True)):
            if last > first:
                segments.append({"text": encoder.decode(record.ids[first:last])[:_CHARACTERS], "counted": counted})
        at = end
    return {"line": record.line, "tokens": len(record.ids), "segments": segments}
