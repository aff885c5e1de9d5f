"""Training state on disk: `checkpoints/step-N`, complete or absent."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from tunewright_trainer.errors import not_readable
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


def newest(root: Path) -> int | None:
    """Step of the newest complete checkpoint."""
    return max(complete_steps(root), default=None)


def wait_for(
    root: Path,
    step: int,
    timeout: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until this pod sees the checkpoint of `step`: a network volume shows another node's files late.

    Raises:
        StageError: INPUT_NOT_READABLE after `timeout` seconds.
    """
    end = clock() + timeout
    while step not in complete_steps(root):
        if clock() >= end:
            raise not_readable(
                path_of(root, step),
                f"the pod with rank 0 resumes from it, but this pod did not see it within {timeout:.0f} s, so the two "
                "do not share the volume",
            )
        sleep(0.5)


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
