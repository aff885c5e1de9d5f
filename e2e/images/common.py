"""What every step of an image build shares: the cache folder, locks, timed progress lines, child processes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from e2e.cluster.lock import locked as hold
from e2e.cluster.paths import cache_root

REPO = Path(__file__).resolve().parents[2]
"""The root of the checkout that this package belongs to."""


NOTEWORTHY_SECONDS = 0.5


class ImageBuildError(RuntimeError):
    """A step failed; the message's last sentence says what to do."""


def locked(name: str) -> AbstractContextManager[None]:
    """Hold a lock of this name, so that two builds on one machine share work instead of racing for a folder."""
    return hold(cache_root() / "locks" / name)


def say(message: str) -> None:
    """Print one progress line at once."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step's title and its seconds if it took any; on a terminal the title is there from its start on."""
    if sys.stderr.isatty():
        print(f"  {title} …", end="\r", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if seconds >= NOTEWORTHY_SECONDS:
        say(f"✓ {title:<60.60} {seconds:6.1f} s")


def run(command: Sequence[str | Path], *, advice: str, env: Mapping[str, str] | None = None) -> None:
    """Run a command; on failure raise ImageBuildError with the end of its output and the advice.

    Args:
        command: Program and arguments.
        advice: A sentence that says what to do when this command fails.
        env: Variables set on top of this process's environment.
    """
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageBuildError(f"{arguments[0]} is not installed. {advice}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise ImageBuildError(f"{' '.join(arguments[:6])} ended with {done.returncode}:\n{tail}\n{advice}")


def uv() -> list[str]:
    """Return the command that starts uv, the pinned one of this interpreter's environment before one of PATH."""
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    if found := shutil.which("uv"):
        return [found]
    raise ImageBuildError("uv is not installed. Install it with 'pip install uv' and run the command again.")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_key(*parts: str | Path) -> str:
    """Return a short key over texts and files' contents: any change of any part gives another key."""
    digest = hashlib.sha256()
    for part in parts:
        value = file_digest(part) if isinstance(part, Path) else hashlib.sha256(part.encode()).hexdigest()
        digest.update(value.encode())
    return digest.hexdigest()[:16]
