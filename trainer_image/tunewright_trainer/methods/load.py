"""A model directory -> a model that has all of its weights."""

import logging
from pathlib import Path
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.errors import StageError


def load_model(path: Path, **options: Any) -> Any:
    """AutoModelForCausalLM.from_pretrained, which alone would fill in random numbers for what the files lack.

    Args:
        path: The directory.
        options: Of from_pretrained.

    Raises:
        StageError: INPUT_NOT_READABLE for tensors that are missing or have another shape; tied ones are not missing.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers.modeling_utils").addFilter(_no_table)
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        # Refused below: transformers' own error names no tensor.
        ignore_mismatched_sizes=True,
        **options,
    )
    missing = sorted(found["missing_keys"])
    if missing:
        raise _incomplete(path, f"{len(missing)} tensors of the model are not in its weights, {missing[0]} among them")
    other = sorted(found["mismatched_keys"])
    if other:
        name, have, want = other[0]
        raise _incomplete(path, f"{name} has the shape {tuple(have)} and config.json describes {tuple(want)}")
    unused = sorted(found["unexpected_keys"])
    if unused:
        log.warning("the architecture does not use all tensors of the weights", tensors=len(unused), first=unused[0])
    return model


def _no_table(record: logging.LogRecord) -> bool:
    """transformers prints a table of the tensors that did not fit, where the log has one line."""
    return "LOAD REPORT" not in record.getMessage()


def _incomplete(path: Path, why: str) -> StageError:
    return StageError(
        ExitCode.INPUT_NOT_READABLE,
        f"cannot read {path}: {why}: copy config.json and weights of the same model again",
    )
