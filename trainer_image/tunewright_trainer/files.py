"""Files that are complete or absent, and readable by the next stage's user."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

DIRECTORY_MODE = 0o755
FILE_MODE = 0o644

_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class NameTakenError(Exception):
    """Something else got the name first; nothing of it was touched."""


def write_atomic(path: Path, text: str) -> None:
    """Write a text file through a temporary sibling, so that a reader sees the old or the new content."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write; it takes the name `path` when the block ends well, else it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.chmod(FILE_MODE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Like replace_file for a directory: filled under a hidden name, then renamed to `path`.

    What an interrupted attempt left under the hidden name is removed first. Only one job may write to `path`.
    """
    with _filled(path.with_name(f".{path.name}.tmp")) as temporary:
        yield temporary
        make_readable(temporary)
        sync_tree(temporary)
        remove_tree(path)
        temporary.rename(path)
        sync_file(path.parent)


@contextlib.contextmanager
def create_directory(path: Path, owner: str) -> Iterator[Path]:
    """Like replace_directory where several jobs may want `path`: nothing that has the name is ever removed.

    Args:
        path: The directory to make.
        owner: Part of the hidden name, so that two owners never share one.

    Raises:
        NameTakenError: `path` got content in the meantime.
    """
    with _filled(path.with_name(f".{path.name}.{owner}.tmp")) as temporary:
        yield temporary
        make_readable(temporary)
        sync_tree(temporary)
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno in _TAKEN:
                raise NameTakenError(f"{path} exists already") from error
            raise
        sync_file(path.parent)


@contextlib.contextmanager
def _filled(temporary: Path) -> Iterator[Path]:
    """An empty directory that is gone at the end, unless it was renamed."""
    temporary.parent.mkdir(parents=True, exist_ok=True)
    remove_tree(temporary)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        remove_tree(temporary)


def make_readable(root: Path) -> None:
    """0755 for directories and 0644 for files: the serving pod runs as another user (safetensors saves 0600)."""
    root.chmod(DIRECTORY_MODE)
    for path in root.rglob("*"):
        path.chmod(DIRECTORY_MODE if path.is_dir() else FILE_MODE)


def sync_tree(root: Path) -> None:
    """Flush root and all below it to the disk, so that the rename that follows never shows less than everything."""
    for path in (*root.rglob("*"), root):
        sync_file(path)


def remove_tree(path: Path) -> None:
    """Remove a directory that may not exist."""
    if path.exists():
        shutil.rmtree(path)


def sync_file(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
