"""How the tests start the pinned vLLM: an interpreter that has it, or the layers of the server image in the cache.

TUNEWRIGHT_VLLM_PYTHON names an interpreter. Without it the layers that `make images` made are laid over a plain
Python 3.11; nothing is installed and no container is needed.
"""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from e2e.images.build import builder
from e2e.images.plan import Layer
from e2e.images.refs import plan_image
from tunewright_server.arguments import ENGINE_MODULE
from tunewright_server.cache import SEED_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
OURS = (ROOT / "crds", ROOT / "server_image")
PREFIX = Path("opt/tunewright")
SITE_PACKAGES = PREFIX / "lib/python3.11/site-packages"
ABSENT = "no vllm here: run `make images`, or set TUNEWRIGHT_VLLM_PYTHON"


@dataclass(frozen=True)
class Runtime:
    """A Python command that imports vllm and our packages, and the seed of vLLM's cache if there is one."""

    python: tuple[str, ...]
    environment: dict[str, str]

    @property
    def engine(self) -> list[str]:
        """The command that starts vLLM's server."""
        return [*self.python, "-m", ENGINE_MODULE]


@cache
def find_runtime() -> Runtime | None:
    """The first way to run vLLM that this machine has; None if there is none."""
    if python := os.environ.get("TUNEWRIGHT_VLLM_PYTHON"):
        return Runtime(_with_path(python), {})
    if importlib.util.find_spec("vllm"):
        return Runtime(_with_path(sys.executable), {})
    return _from_layers()


def _from_layers() -> Runtime | None:
    python = shutil.which("python3.11", path="/usr/bin:/usr/local/bin") or shutil.which("python3.11")
    folders = [folder for layer in plan_image("server").plan.layers if (folder := _made(layer))]
    packages = [folder / SITE_PACKAGES for folder in folders if (folder / SITE_PACKAGES).is_dir()]
    # Code that the image has is older than the checkout's.
    packages = [path for path in packages if not (path / "tunewright_server").exists()]
    if python is None or not any((path / "vllm").is_dir() for path in packages):
        return None
    seeds = [seed for folder in folders if (seed := folder / PREFIX / "vllm-cache").is_dir()]
    return Runtime(_with_path(python, *packages), {SEED_VARIABLE: str(seeds[0])} if seeds else {})


def _made(layer: Layer) -> Path | None:
    """The folder of a layer, if it was made before."""
    folder = builder().cache / "layers" / layer.key / "diff"
    return folder if folder.is_dir() else None


def _with_path(python: str, *packages: Path) -> tuple[str, ...]:
    """Python with these packages and ours, but without those of the tests' own environment."""
    path = os.pathsep.join(map(str, (*OURS, *packages)))
    return ("env", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1", python)
