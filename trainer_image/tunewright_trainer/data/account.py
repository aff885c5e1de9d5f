"""What became of every row: read = unchanged + fixed + dropped + quarantined, and of those kept = train + heldOut.

All of these count rows. A row that is Split becomes several records, `pieces` in all, so there are
train + heldOut - fixed.Split + pieces records.

unchanged    trained on or held out as it is
fixed        kept after a change that has a name: Truncated, Split, EarlierAnswersNotLearnt (unless Truncated as well)
dropped      right, but left out by a rule of spec.dataset: TooLong, Duplicate
quarantined  wrong, and set aside: NotJson, WrongShape, Ambiguous, …
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunewright_trainer.data.rows import RowRule

MAX_NOTES = 20
_NOTE_CHARACTERS = 240


class Fate(StrEnum):
    """What happened to a row that is not unchanged."""

    FIXED = "fixed"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Note:
    """A row that is not unchanged."""

    file: str
    line: int
    fate: Fate
    rule: RowRule
    reason: str

    def text(self) -> str:
        """One line for people."""
        return f"{self.file}: line {self.line}: {self.fate.value} ({self.rule.value}): {self.reason}"[:_NOTE_CHARACTERS]


@dataclass
class Account:
    """Rows of one source, or of all."""

    read: int = 0
    train: int = 0
    held_out: int = 0
    pieces: int = 0
    counts: Counter[tuple[Fate, RowRule]] = field(default_factory=Counter)

    def total(self, fate: Fate) -> int:
        """Rows with this fate."""
        return sum(count for (found, _), count in self.counts.items() if found is fate)

    @property
    def unchanged(self) -> int:
        """Rows that are kept as they are."""
        return self.train + self.held_out - self.total(Fate.FIXED)

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.read + other.read,
            self.train + other.train,
            self.held_out + other.held_out,
            self.pieces + other.pieces,
            self.counts + other.counts,
        )

    def to_dict(self) -> dict[str, Any]:
        """For account.json."""
        fates: dict[str, dict[str, int]] = {fate.value: {} for fate in Fate}
        for (fate, rule), count in sorted(self.counts.items()):
            fates[fate.value][rule.value] = count
        kept = {"unchanged": self.unchanged, **fates}
        return {"read": self.read, **kept, "train": self.train, "heldOut": self.held_out, "pieces": self.pieces}


class RowLog:
    """rows.jsonl: every row that is not unchanged, with file, line, rule and reason; a quarantined one with its
    content. The first MAX_NOTES are kept for people."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.notes: list[Note] = []

    def add(self, note: Note, row: Any = None) -> None:
        """Write a row down."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)
        entry: dict[str, Any] = {
            "file": note.file,
            "line": note.line,
            "fate": note.fate.value,
            "rule": note.rule.value,
            "reason": note.reason,
        }
        if row is not None:
            entry["row"] = row
        # Half a surrogate pair is no UTF-8, and may be what is wrong with the row.
        self._file.write(json.dumps(entry, ensure_ascii=True, default=str) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
