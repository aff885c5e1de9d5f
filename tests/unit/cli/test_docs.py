"""The screens in docs/cli.md are the screens: each block below a `<!-- snapshot NAME -->` is that snapshot."""

import os
import re
from pathlib import Path

from tests.unit.cli.conftest import SNAPSHOTS
from tunewright_cli.spec import find_command

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
BLOCK = re.compile(r"(<!-- snapshot ([a-z-]+) -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def test_the_screens_of_the_page_are_the_snapshots() -> None:
    text = PAGE.read_text()
    fresh = BLOCK.sub(lambda block: block[1] + (SNAPSHOTS / f"{block[2]}.txt").read_text() + block[4], text)
    if os.environ.get("REWRITE_SNAPSHOTS"):
        PAGE.write_text(fresh)
    assert text.count("<!-- snapshot") == len(BLOCK.findall(text)) > 4
    assert fresh == PAGE.read_text()


def test_every_command_of_the_page_exists() -> None:
    named = re.findall(r"(?:^|`|\| )(?:kubectl )?tunewright ([a-z]+)", PAGE.read_text(), re.MULTILINE)
    assert {name for name in named if find_command(name) is None} == set()
    assert len(set(named)) > 8
