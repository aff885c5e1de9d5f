"""A failure with a name: which exit code a stage ends with, and the sentence it leaves behind.

`classify` turns any exception into a `StageError`; it looks at class names and messages instead of importing
torch, so that the light stages and the parent process can use it too.
"""

import errno
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from tunewright_api.names import ExitCode, Stage

FULL_BELOW_BYTES = 1 << 20
"""A volume with less free space than this counts as full when a write to it failed."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_SPACE_TEXT = re.compile(r"no space left on device|os error 28|disk quota exceeded", re.IGNORECASE)
_OOM_TEXT = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|cu(blas|dnn)_status_alloc_failed"
    r"|failed to cuda (calloc|malloc|host alloc)",
    re.IGNORECASE,
)
_PEER_CLASSES = frozenset({"DistNetworkError", "DistBackendError", "DistStoreError", "RendezvousConnectionError"})
_PEER_TEXT = re.compile(
    r"connection (closed|reset|refused) by peer|connection (was )?reset|connection refused|broken pipe|gloo.*timed out"
    r"|timed out waiting|socket.*timeout|remote process exited|nccl communicator was aborted|connectfullmesh failed"
    r"|rendezvous.*(closed|timed? ?out)|op timed out|read error.*peer",
    re.IGNORECASE | re.DOTALL,
)


class StageError(Exception):
    """A stage cannot go on.

    Args:
        code: The exit code; its `reason` becomes a condition's reason.
        message: What happened and what to do, one sentence for people.
        rank: Global rank of the process that failed, where there are several.
    """

    def __init__(self, code: ExitCode, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.rank = rank


class PreemptedError(StageError):
    """SIGTERM arrived: the state was saved at a step boundary, and the next attempt goes on from there."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.PREEMPTED, message)


_LESS_MEMORY = (
    "lower hyperparameters.microBatchSize or sequenceLength, set gradientCheckpointing: true, raise zeroStage, or "
)


def free_bytes(directory: Path) -> int:
    """Bytes that this user may still write below the directory (or its nearest parent that exists)."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    stats = os.statvfs(directory)
    return stats.f_bavail * stats.f_frsize


def classify(
    error: BaseException,
    outputs: Iterable[Path],
    free: Callable[[Path], int] = free_bytes,
    *,
    training: bool = False,
) -> StageError:
    """Name an exception.

    Args:
        error: What a stage raised.
        outputs: Directories the stage writes to; everything else is an input.
        free: Free bytes of a directory (injected in tests).
        training: Whether this process trains: its settings decide what memory it needs, and the loss of another
            process of its run breaks connections.
    """
    if isinstance(error, StageError):
        return error
    outputs = list(outputs)
    text = f"{type(error).__name__}: {error}"
    path = Path(os.fsdecode(error.filename)) if isinstance(error, OSError) and error.filename else None
    if (isinstance(error, OSError) and error.errno in _FULL) or _NO_SPACE_TEXT.search(text):
        return _volume_full(_owner(path, outputs) or _fullest(outputs, free))
    if isinstance(error, OSError) and error.errno in _DENIED and path is not None:
        owner = _owner(path, outputs)
        return _not_writable(path) if owner else not_readable(path, "permission denied")
    if isinstance(error, FileNotFoundError) and path is not None and not _owner(path, outputs):
        return not_readable(path, "it does not exist")
    if isinstance(error, (NotADirectoryError, FileExistsError)) and path is not None:
        return _file_in_place(path) if _owner(path, outputs) else not_readable(path, "a file is where a directory is")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _OOM_TEXT.search(text):
        return StageError(
            ExitCode.OUT_OF_MEMORY,
            f"out of memory ({_first_line(text)}): {_LESS_MEMORY if training else ''}give resourcesPerNode more memory",
        )
    if training and (type(error).__name__ in _PEER_CLASSES or _PEER_TEXT.search(text)):
        return StageError(
            ExitCode.PEER_LOST,
            f"lost the connection to another process of this run ({_first_line(text)}): look at the pod that "
            "ended first",
        )
    # torch.save and mmap report a full volume without errno, so ask the volume itself.
    full = next((d for d in outputs if free(d) < FULL_BELOW_BYTES), None)
    if full is not None:
        return _volume_full(full)
    return StageError(ExitCode.INTERNAL, f"unexpected {_first_line(text)}: see the log of this container")


def not_readable(path: Path, why: str) -> StageError:
    """An input that cannot be read."""
    return StageError(
        ExitCode.INPUT_NOT_READABLE,
        f"cannot read {path}: {why}; check the path after pvc://CLAIM/ and that the file is readable by user "
        f"{os.geteuid()} (chmod a+r, and a+x on its directories)",
    )


def not_yet(path: Path, stage: Stage) -> StageError:
    """What an earlier stage of this job would have written."""
    return StageError(
        ExitCode.INPUT_NOT_READABLE, f"cannot read {path}: it does not exist: run the {stage.value} stage first"
    )


def _file_in_place(path: Path) -> StageError:
    return StageError(
        ExitCode.OUTPUT_NOT_WRITABLE,
        f"cannot write {path}: it, or a directory above it, is a file: remove the file, or choose another output.uri",
    )


def _not_writable(path: Path) -> StageError:
    return StageError(
        ExitCode.OUTPUT_NOT_WRITABLE,
        f"cannot write {path}: permission denied for user {os.geteuid()}; make the directory of output.uri writable "
        "for it (fsGroup, or chmod g+w) and the claim not read-only",
    )


def _volume_full(directory: Path | None) -> StageError:
    where = f"the volume of {directory}" if directory else "a volume"
    return StageError(
        ExitCode.VOLUME_FULL,
        f"{where} is full: enlarge the claim of output.uri or remove old versions, or lower checkpoint.keepLast",
    )


def _owner(path: Path | None, directories: Iterable[Path]) -> Path | None:
    """The output directory that a path belongs to: it lies below it, is it, or is one of its missing parents."""
    if path is None:
        return None
    absolute = path.absolute()
    return next((d for d in directories if d in (absolute, *absolute.parents) or absolute in d.parents), None)


def _fullest(directories: list[Path], free: Callable[[Path], int]) -> Path | None:
    return min(directories, key=free, default=None)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300]
