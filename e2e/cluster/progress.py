"""How progress is shown: one line a step, with its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(stderr=True, highlight=False)
TICK, CROSS = "[green]✓[/green]", "[red]✗[/red]"


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Show one step: a spinner while it runs, then one line with its seconds."""
    started = time.monotonic()
    with console.status(title) as status:

        def note(text: str) -> None:
            console.print(f"  {text}", style="dim")
            status.update(text)

        try:
            yield note
        except BaseException:
            console.print(f"{CROSS} {title:<34}{time.monotonic() - started:7.1f} s")
            raise
    console.print(f"{TICK} {title:<34}{time.monotonic() - started:7.1f} s")
