"""Read and check the configuration file."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tunewright_api.base import Model
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

ConfigT = TypeVar("ConfigT", bound=Model)


def load(path: Path, model: type[ConfigT]) -> ConfigT:
    """Parse the file as `model`.

    Raises:
        StageError: INVALID_CONFIG, naming the file and the path of each wrong field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"cannot read the configuration {path}: {error.strerror}; mount it there or pass --config FILE",
        ) from error
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise StageError(ExitCode.INVALID_CONFIG, f"{path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """`field.path: what is wrong`, for the first five errors."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [f"{'.'.join(map(str, d['loc'])) or 'the file'}: {d['msg']}" for d in details[:5]]
    if len(details) > 5:
        parts.append(f"and {len(details) - 5} more")
    return "; ".join(parts)
