"""What an evaluation measured before it was interrupted: the next attempt goes on from there."""

import hashlib
import json
from pathlib import Path

from pydantic import TypeAdapter

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.evaluation.compare import Measured
from tunewright_trainer.files import write_atomic

_MEASURED = TypeAdapter(dict[str, Measured])


class Kept:
    """A file with what was measured, by model. Of another configuration or other weights it counts as absent.

    Args:
        path: The file.
        config: Of this job.
        trained: The directory of the tuned weights, which training replaces as a whole.
    """

    def __init__(self, path: Path, config: TrainerConfig, trained: Path) -> None:
        self._path = path
        known = f"{config.model_dump_json()} {trained.stat().st_mtime_ns}"
        self._key = hashlib.sha256(known.encode()).hexdigest()

    def read(self) -> dict[str, Measured]:
        """What was measured; empty at first."""
        if not self._path.is_file():
            return {}
        content = json.loads(self._path.read_text(encoding="utf-8"))
        return _MEASURED.validate_python(content["models"]) if content["key"] == self._key else {}

    def write(self, measured: dict[str, Measured]) -> None:
        """Replace the file."""
        content = {"key": self._key, "models": _MEASURED.dump_python(measured, mode="json")}
        write_atomic(self._path, json.dumps(content, ensure_ascii=False, allow_nan=False))

    def remove(self) -> None:
        """The evaluation is done."""
        self._path.unlink(missing_ok=True)
