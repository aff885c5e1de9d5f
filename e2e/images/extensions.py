"""DeepSpeed's extensions for disks, compiled for this virtual environment as for the trainer's image."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from e2e.cluster.packages import ensure_packages
from e2e.cluster.paths import cache_root
from e2e.images.common import REPO, content_key, locked, run, say, step

SCRIPT = REPO / "trainer_image" / "build_extensions.py"
NEEDED = {"g++": "g++", "/usr/include/libaio.h": "libaio-dev"}


def extensions_path() -> Path:
    """Return where they lie (or will lie): a folder for PYTHONPATH."""
    key = content_key(SCRIPT, sys.version, version("torch"), version("deepspeed"))
    return cache_root() / "extensions" / key


def build_extensions() -> Path:
    """Compile them unless they are cached; return their folder."""
    target = extensions_path()
    with locked("extensions"):
        if target.is_dir():
            say("  DeepSpeed's extensions: cached")
            return target
        ensure_packages(NEEDED, say)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch, step("compile DeepSpeed's extensions"):
            made = Path(scratch, "made")
            run(
                [sys.executable, SCRIPT, made],
                advice="Install g++ and libaio's header (Debian: libaio-dev) and run again.",
            )
            made.rename(target)
    return target
