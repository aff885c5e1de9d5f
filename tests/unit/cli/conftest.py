"""Snapshots of screens: what people see, as text, in `snapshots/`.

`REWRITE_SNAPSHOTS=1 pytest tests/unit/cli` writes them anew; look at the difference before you commit it.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pytest
from rich.console import RenderableType

from tests import cli_objects
from tunewright_cli.console import make_console

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTH = 110
NOW = datetime.fromisoformat(cli_objects.NOW)


class Snapshot(Protocol):
    """`snapshot(name, screen)` fails when the screen is not what it was."""

    def __call__(self, name: str, screen: RenderableType, width: int = WIDTH) -> None: ...


def text_of(screen: RenderableType, width: int = WIDTH) -> str:
    """The screen without colours, and without spaces at the ends of its lines."""
    console = make_console(width=width)
    with console.capture() as capture:
        console.print(screen)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines()) + "\n"


@pytest.fixture
def snapshot() -> Snapshot:
    """`snapshot(name, screen)` fails when the screen is not what it was."""

    def check(name: str, screen: RenderableType, width: int = WIDTH) -> None:
        path, text = SNAPSHOTS / f"{name}.txt", text_of(screen, width)
        if os.environ.get("REWRITE_SNAPSHOTS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no snapshot {name}: run REWRITE_SNAPSHOTS=1 pytest tests/unit/cli"
        assert text == path.read_text()

    return check
