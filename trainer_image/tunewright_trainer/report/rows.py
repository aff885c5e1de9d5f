"""A few training records as the model reads them, with what the loss counts told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_trainer.data.store import PreparedRecord

MAX_ROWS = 3
MAX_CHARACTERS = 4000


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens; `counted` when the loss counts them."""

    text: str
    counted: bool


@dataclass(frozen=True)
class Row:
    """A record: its line in the user's file, its tokens, and its text in segments."""

    line: int
    tokens: int
    counted: int
    segments: Sequence[Segment]


def render_rows(records: Sequence[PreparedRecord], tokenizer: Any, count: int = MAX_ROWS) -> list[Row]:
    """The first records as text, each cut to MAX_CHARACTERS.

    Args:
        records: What training reads.
        tokenizer: A `tokenizers.Tokenizer`.
        count: Records to show.
    """
    return [_row(record, tokenizer) for record in records[:count]]


def load_tokenizer(model: Path) -> Any:
    """The tokenizer of a model directory, without torch and transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(model / "tokenizer.json"))


def _row(record: PreparedRecord, tokenizer: Any) -> Row:
    segments: list[Segment] = []
    left = MAX_CHARACTERS
    for start, end, counted in _ranges(record):
        text = tokenizer.decode(record.ids[start:end], skip_special_tokens=False)
        segments.append(Segment(text if len(text) <= left else text[:left] + "…", counted))
        left -= len(text)
        if left <= 0:
            break
    return Row(record.line, len(record.ids), sum(end - start for start, end in record.spans), segments)


def _ranges(record: PreparedRecord) -> list[tuple[int, int, bool]]:
    ranges, position = [], 0
    for start, end in record.spans:
        if position < start:
            ranges.append((position, start, False))
        ranges.append((start, end, True))
        position = end
    if position < len(record.ids):
        ranges.append((position, len(record.ids), False))
    return ranges
