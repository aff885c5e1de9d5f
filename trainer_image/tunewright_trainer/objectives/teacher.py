"""The model that distillation imitates: checked by prepare, loaded by train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright_api.names import ExitCode
from tunewright_trainer.data.model_files import damaged, read_model
from tunewright_trainer.data.tokens import TOKENIZER_FILE
from tunewright_trainer.errors import StageError, not_readable

if TYPE_CHECKING:
    import torch
    from torch import nn

_FIELD = "objective.supervised.distillation.teacher.uri"


def check_teacher(teacher: Path, base: Path) -> None:
    """Both must write the same token for the same id: the divergence compares their logits one by one.

    Raises:
        StageError: INPUT_NOT_READABLE for what is no model directory or damaged, INVALID_CONFIG for another vocabulary.
    """
    for file in ("config.json", TOKENIZER_FILE):
        if not (teacher / file).is_file():
            raise not_readable(teacher / file, f"it does not exist, so {_FIELD} is no model directory")
    read_model(teacher)
    theirs, ours = _vocabulary(teacher), _vocabulary(base)
    if theirs == ours:
        return
    token = min(token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token))
    raise StageError(
        ExitCode.INVALID_CONFIG,
        f"{_FIELD}: the vocabularies of teacher and base model differ ({len(theirs)} and {len(ours)} tokens; {token!r} "
        f"is {theirs.get(token, 'absent')} in one and {ours.get(token, 'absent')} in the other): use a teacher of the "
        "same model family, or train on its answers instead",
    )


def load_teacher(path: Path, dtype: torch.dtype, attention: str | None, device: torch.device) -> nn.Module:
    """The teacher, whole and frozen.

    Args:
        path: Its directory.
        dtype: What it computes in.
        attention: Implementation that the student uses, so that both understand packed rows.
        device: Where it computes.
    """
    from tunewright_trainer.methods.load import load_model

    with _whole():
        model: Any = load_model(path, dtype=dtype, attn_implementation=attention)
    frozen: nn.Module = model.to(device).eval().requires_grad_(False)
    return frozen


def _vocabulary(model: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        vocabulary: dict[str, int] = Tokenizer.from_file(str(model / TOKENIZER_FILE)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises nothing more exact
        raise damaged(model / TOKENIZER_FILE, error) from error
    return vocabulary


@contextmanager
def _whole() -> Iterator[None]:
    """ZeRO-3 makes transformers divide what it loads; the teacher is no part of what DeepSpeed gathers."""
    from transformers.integrations import deepspeed

    configuration = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = configuration
