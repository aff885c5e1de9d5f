"""Training state on disk: `checkpoints/step-N`, complete or absent."""

import re
from pathlib import Path

from tunewright_trainer.files import make_readable, remove_tree, sync_tree

_NAME = re.compile(r"^step-(\d+)$")
PARTIAL = ".partial"


def complete_steps(root: Path) -> list[int]:
    """Steps of the complete checkpoints, oldest first. A checkpoint has its name only once it is complete."""
    if not root.is_dir():
        return []
    matches = (_NAME.match(path.name) for path in root.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def path_of(root: Path, step: int) -> Path:
    """Directory of the checkpoint of a step."""
    return root / f"step-{step}"


def newest(root: Path) -> Path | None:
    """Directory of the newest complete checkpoint."""
    steps = complete_steps(root)
    return path_of(root, steps[-1]) if steps else None


def commit(root: Path, written: Path, step: int, keep_last: int) -> None:
    """Publish what was written below PARTIAL as the checkpoint of `step`, then drop the oldest ones."""
    make_readable(written)
    sync_tree(written)
    target = path_of(root, step)
    remove_tree(target)
    written.rename(target)
    for old in complete_steps(root)[:-keep_last]:
        # Renamed first: a removal that is cut short must not leave a broken checkpoint under a good name.
        doomed = root / PARTIAL / f"old-{old}"
        path_of(root, old).rename(doomed)
        remove_tree(doomed)


def clean(root: Path) -> None:
    """Create the directory and remove what an interrupted attempt left half written."""
    remove_tree(root / PARTIAL)
    (root / PARTIAL).mkdir(parents=True, exist_ok=True)
