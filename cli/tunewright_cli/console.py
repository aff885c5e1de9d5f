"""Where screens are printed: as wide as the terminal, and readable in a log."""

import os

from rich.console import Console

_LOG_COLUMNS = 120


class _Console(Console):
    """Who closes our output has read enough: rich would end the process with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console on the standard output, or on the standard error. What a status says is printed as it is."""
    console = _Console(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)
    if width is None and not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _LOG_COLUMNS
    return console
