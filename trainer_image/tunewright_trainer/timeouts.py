"""How long a run waits, from environment variables. Pure."""

import math
from collections.abc import Mapping

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError


def seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    """The value of a variable.

    Raises:
        StageError: INVALID_CONFIG for what is no number of seconds.
    """
    text = environment.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"the environment variable {name} is {text!r}: write a number of seconds, such as {default:g}",
        )
    return value
