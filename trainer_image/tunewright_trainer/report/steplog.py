"""steps.jsonl: one JSON object per optimizer step, no step twice however often the run was interrupted.

Each line has the fields of `StepRecord` and `time`, seconds since the epoch. A number that is none is null.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from tunewright_trainer.files import write_atomic
from tunewright_trainer.steps import EVAL_LOSS, StepRecord

_FIELDS = frozenset(field.name for field in fields(StepRecord))


@dataclass(frozen=True)
class LoggedStep:
    """A step, and when it ended in seconds since the epoch."""

    time: float
    record: StepRecord


class StepLog:
    """Appends to the log of a run that goes on after `resume_step`; what came after that step is forgotten."""

    def __init__(self, path: Path, resume_step: int) -> None:
        self.kept = read_steps(path, until=resume_step)
        write_atomic(path, "".join(_line(step) for step in self.kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def append(self, step: LoggedStep) -> None:
        """Write a step; it is in the file when this returns."""
        self._file.write(_line(step))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_steps(path: Path, until: int | None = None) -> list[LoggedStep]:
    """The steps of a log in their order, up to step `until` if given; a line that an interrupted write left half done,
    and all after it, are not. Empty without a log.
    """
    if not path.is_file():
        return []
    steps: list[LoggedStep] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            step = _parse(line)
            if step is None:
                break
            steps.append(step)
    return steps if until is None else [step for step in steps if step.record.step <= until]


def read_evaluations(path: Path, until: int) -> list[float]:
    """The losses on held-out records in a log, up to step `until`."""
    records = [step.record for step in read_steps(path, until)]
    return [record.figures[EVAL_LOSS] for record in records if EVAL_LOSS in record.figures]


def _line(step: LoggedStep) -> str:
    entry = {"time": round(step.time, 3), **step.record.to_dict()}
    return json.dumps(_finite(entry), separators=(",", ":")) + "\n"


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What `_finite` left out is NaN again."""
    return {key: math.nan if value is None else value for key, value in entry.items()}


def _parse(line: str) -> LoggedStep | None:
    try:
        entry = json.loads(line)
        known = _numbers({key: value for key, value in entry.items() if key in _FIELDS})
        return LoggedStep(entry["time"], StepRecord(**{**known, "figures": _numbers(known["figures"])}))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
