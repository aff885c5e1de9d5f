"""Training state on disk: `checkpoints/step-N`, complete or absent.

step-N/
  checkpoint.json     what it was made by
  rank-R.pt           what rank R saved
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError, not_readable
from tunewright_trainer.files import make_readable, remove_tree, sync_tree

_NAME = re.compile(r"^step-(\d+)$")
PARTIAL = ".partial"
DESCRIPTION = "checkpoint.json"


@dataclass(frozen=True)
class Description:
    """What must be the same for a run to go on as if it had never stopped.

    Attributes:
        strategy: Class of the parallelism that divided the state.
        processes: Number of processes.
        global_batch: Records per optimizer step: with the step it gives the position in the data.
        records: Records to train on.
        seed: Of their order.
    """

    strategy: str
    processes: int
    global_batch: int
    records: int
    seed: int

    def to_json(self) -> str:
        """The content of checkpoint.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def check(root: Path, step: int, run: Description) -> None:
    """Compare the checkpoint of `step` with the run that wants to go on from it.

    Raises:
        StageError: INVALID_CONFIG, naming what differs.
    """
    path = path_of(root, step)
    try:
        saved = json.loads((path / DESCRIPTION).read_text())
    except FileNotFoundError as error:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"{path} has no {DESCRIPTION}, so another version of the trainer image wrote it: finish with that version, "
            "or remove the checkpoint to begin anew",
        ) from error
    wanted = asdict(run)
    differing = [
        f"{name} was {saved.get(name)} and is {value}" for name, value in wanted.items() if saved.get(name) != value
    ]
    if differing:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"{path} belongs to another run ({'; '.join(differing)}): remove it to begin anew",
        )


def file_of(directory: Path, rank: int) -> Path:
    """What a rank saved in a checkpoint's directory."""
    return directory / f"rank-{rank}.pt"


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
