"""Training state on disk: `checkpoints/step-N`, complete or absent.

step-N/
  checkpoint.json     what it was made by, and how large each file is
  rank-R.pt           what rank R saved
damaged-N/            a step-N that was found to be incomplete
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.errors import StageError, not_readable
from tunewright_trainer.files import make_readable, remove_tree, sync_file, sync_tree

_NAME = re.compile(r"^step-(\d+)$")
PARTIAL = ".partial"
DESCRIPTION = "checkpoint.json"
_FILES = "files"


@dataclass(frozen=True)
class Description:
    """What must be the same for a run to go on as if it had never stopped.

    Attributes:
        strategy: Class of the parallelism that divided the state, and the stage of ZeRO.
        processes: Number of processes.
        global_batch: Records per optimizer step: with the step it gives the position in the data.
        records: Records to train on.
        seed: Of their order.
        model: Where the weights come from.
        dataset: Digest of the prepared records and of the split.
        objective: What is minimised, as JSON.
        method: How weights are changed, as JSON.
        optimizer: Its name.
        precision: Of weights and computation.
    """

    strategy: str
    processes: int
    global_batch: int
    records: int
    seed: int
    model: str
    dataset: str
    objective: str
    method: str
    optimizer: str
    precision: str

    def to_json(self, files: Mapping[str, int]) -> str:
        """The content of checkpoint.json; `files` are the bytes of each file by its name."""
        return json.dumps({**asdict(self), _FILES: files}, indent=2) + "\n"


def check(root: Path, step: int, run: Description) -> None:
    """Compare the checkpoint of `step` with the run that wants to go on from it.

    Raises:
        StageError: INVALID_CONFIG, naming what differs.
    """
    path = path_of(root, step)
    saved = json.loads((path / DESCRIPTION).read_text())
    wanted = asdict(run)
    differing = [
        f"{name} was {saved.get(name)} and is {value}" for name, value in wanted.items() if saved.get(name) != value
    ]
    if differing:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"{path} belongs to another run ({'; '.join(differing)}): go back to what was, or remove {root} to begin "
            "anew",
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


def fault(path: Path) -> str | None:
    """What is missing of a checkpoint that has its name; None if nothing is.

    Only sizes are compared: to read the files takes as long as to resume.
    """
    try:
        sizes = dict(json.loads((path / DESCRIPTION).read_text())[_FILES])
    except FileNotFoundError:
        return f"{path.name} has no {DESCRIPTION}"
    except (ValueError, TypeError, KeyError):
        return f"{path.name}/{DESCRIPTION} does not say what belongs to it"
    for name, size in sizes.items():
        file = path / name
        if not file.exists():
            return f"{path.name}/{name} is missing"
        if (there := file.stat().st_size) != size:
            return f"{path.name}/{name} has {there} of {size} bytes"
    return None


def newest(root: Path) -> int | None:
    """Step of the newest complete checkpoint of which nothing is missing."""
    return max((step for step in complete_steps(root) if not fault(path_of(root, step))), default=None)


def pass_over(root: Path) -> int | None:
    """`newest`, after those above it lost their name; they stay as `damaged-N` for people to look at.

    Raises:
        StageError: INPUT_NOT_READABLE if there are checkpoints but none is whole: whether all progress is given up is
            for a person to say.
    """
    good = newest(root)
    damaged = {step: fault(path_of(root, step)) for step in complete_steps(root) if good is None or step > good}
    if good is None and damaged:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"no checkpoint in {root} is whole ({'; '.join(map(str, damaged.values()))}): put back the missing files, "
            "or remove these directories to begin anew",
        )
    for step, why in damaged.items():
        aside = root / f"damaged-{step}"
        remove_tree(aside)
        path_of(root, step).rename(aside)
        log.LOGGER.warning("%s: it is now %s, and training goes on from step %d", why, aside.name, good)
    return good


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
    while step not in complete_steps(root) or fault(path_of(root, step)):
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
    # The new name is on the disk before an old one goes: a node that loses power has one of them.
    sync_file(root)
    for old in complete_steps(root)[:-keep_last]:
        # Renamed first: a removal that is cut short must not leave a broken checkpoint under a good name.
        doomed = root / PARTIAL / f"old-{old}"
        path_of(root, old).rename(doomed)
        remove_tree(doomed)


def clean(root: Path) -> None:
    """Create the directory and remove what an interrupted attempt left half written."""
    remove_tree(root / PARTIAL)
    (root / PARTIAL).mkdir(parents=True, exist_ok=True)
