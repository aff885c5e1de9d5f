"""Where screens are printed: as wide as the terminal, and readable in a log."""

import os

from rich.console import Console

_LOG_COLUMNS = 120


class _Console(Console):
    """Who closes our output has read enough: rich would end the process with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> Console:
    """A console on the standard output, or on the standard error."""
    console = _Console(highlight=False, stderr=stderr)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _LOG_COLUMNS
    return console
