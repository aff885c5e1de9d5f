"""What must be in a model directory, read without torch and transformers."""

import json
from pathlib import Path
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is absent.

    Raises:
        StageError: INPUT_NOT_READABLE if it is something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise damaged(path, ValueError("no JSON object"))
    return value


def check_weights(model: Path) -> None:
    """Whether the files of the weights are there, of sharded ones all that the index names.

    Raises:
        StageError: INPUT_NOT_READABLE.
    """
    indices = [model / f"{name}.index.json" for name in _WEIGHTS]
    index = next((path for path in indices if path.is_file()), None)
    if any((model / name).is_file() for name in _WEIGHTS):
        return
    if index is None:
        raise _no_weights(model, f"it has neither {_WEIGHTS[0]} nor an index of several such files")
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    missing = [shard for shard in shards if not (model / shard).is_file()]
    if missing or not shards:
        listed = ", ".join(missing[:3])
        raise _no_weights(model, f"of the {len(shards)} files in {index.name} {len(missing)} are missing ({listed})")


def _no_weights(model: Path, why: str) -> StageError:
    return StageError(
        ExitCode.INPUT_NOT_READABLE, f"cannot read {model}: {why}: copy the model again, with weights in safetensors"
    )


def damaged(path: Path, error: Exception) -> StageError:
    """A file of a model that is not what its name says."""
    return StageError(
        ExitCode.INPUT_NOT_READABLE,
        f"cannot read {path}: it is damaged ({str(error).splitlines()[0][:200]}): copy it from the model again",
    )
