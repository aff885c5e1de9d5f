"""Freezing of named layers."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError


def frozen(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The parameter names that a pattern matches, by their own name or by that of a module above them.

    Raises:
        StageError: INVALID_CONFIG for a pattern that matches nothing.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if any(fnmatchcase(part, pattern) for part in _ancestry(name))}
        if not matching:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"method.full.freeze: {pattern} matches no module of this model: its parameters have names like "
                f"{names[0]}",
            )
        found |= matching
    return found


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take the parameters that the patterns name out of training; a tied one goes by each of its names.

    Raises:
        StageError: INVALID_CONFIG as `frozen` does, and when nothing is left to train.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in frozen(parameters, patterns):
        parameters[name].requires_grad_(requires_grad=False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise StageError(
            ExitCode.INVALID_CONFIG, "method.full.freeze leaves nothing to train: freeze fewer layers, or use lora"
        )


def _ancestry(name: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c"""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
