"""What parent, torchrun and workers of one pod tell each other, through files in a private directory.

stop          the parent got SIGTERM: save at the next step boundary and end
started-R     rank R is in its training loop
outcome-R     how rank R ended
processes     how torchrun saw its workers die
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_api.results import TrainResult
from tunewright_trainer.errors import StageError
from tunewright_trainer.files import write_atomic

RUN_DIR_ENV = "TUNEWRIGHT_RUN_DIR"


@dataclass(frozen=True)
class WorkerOutcome:
    """How a rank ended: a result or an error, and when (seconds since the epoch)."""

    rank: int
    time: float
    result: TrainResult | None = None
    error: StageError | None = None


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one attempt in one pod."""

    path: Path

    @classmethod
    def from_environment(cls) -> "RunDirectory":
        """The directory that the parent made."""
        return cls(Path(os.environ[RUN_DIR_ENV]))

    def request_stop(self) -> None:
        """Ask the workers to save and end."""
        (self.path / "stop").touch()

    def stop_requested(self) -> bool:
        """Whether the parent asked to end."""
        return (self.path / "stop").exists()

    def mark_started(self, rank: int) -> None:
        """Say that this rank reached its training loop."""
        (self.path / f"started-{rank}").touch()

    def started(self) -> int:
        """Ranks of this pod that reached their training loop."""
        return len(list(self.path.glob("started-*")))

    def write_result(self, rank: int, result: TrainResult) -> None:
        """Leave the result of a rank."""
        self._write(rank, {"result": result.to_dict()})

    def write_error(self, rank: int, error: StageError) -> None:
        """Leave the error of a rank."""
        self._write(rank, {"code": int(error.code), "message": error.message})

    def outcomes(self) -> list[WorkerOutcome]:
        """The outcomes that were left, first one first."""
        entries = [json.loads(path.read_text()) for path in self.path.glob("outcome-*")]
        return sorted((_outcome(entry) for entry in entries), key=lambda outcome: outcome.time)

    def write_deaths(self, exit_codes: dict[int, int]) -> None:
        """Leave the exit codes, by rank, that torchrun saw (negative: a signal)."""
        write_atomic(self.path / "processes", json.dumps(exit_codes))

    def deaths(self) -> dict[int, int]:
        """Exit codes by rank that torchrun saw."""
        file = self.path / "processes"
        return {int(rank): code for rank, code in json.loads(file.read_text()).items()} if file.exists() else {}

    def _write(self, rank: int, entry: dict[str, object]) -> None:
        write_atomic(self.path / f"outcome-{rank}", json.dumps({"rank": rank, "time": time.time(), **entry}))


def _outcome(entry: dict[str, object]) -> WorkerOutcome:
    rank, moment = int(str(entry["rank"])), float(str(entry["time"]))
    if "result" in entry:
        return WorkerOutcome(rank, moment, result=TrainResult.model_validate(entry["result"]))
    error = StageError(ExitCode(int(str(entry["code"]))), str(entry["message"]), rank)
    return WorkerOutcome(rank, moment, error=error)
