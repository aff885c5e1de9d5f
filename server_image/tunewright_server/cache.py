"""vLLM's cache directory, filled with what the image brought along.

Before it loads a model, vLLM starts a second Python to look at the model's class, and remembers the answer on disk:
15 s of CPU time on a pod's empty disk. The image holds the answers (`warm`), and a start copies them.
"""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

SEED_VARIABLE = "TUNEWRIGHT_VLLM_CACHE_SEED"

log = logging.getLogger(__name__)


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where vLLM may write: VLLM_CACHE_ROOT, else below the temporary directory (a pod's root is read-only)."""
    return Path(environment.get("VLLM_CACHE_ROOT") or Path(tempfile.gettempdir()) / "vllm-cache")


def fill_cache(environment: Mapping[str, str]) -> None:
    """Copy the image's seed, if it has one, into vLLM's cache. A failure costs time at the start, nothing else."""
    seed = environment.get(SEED_VARIABLE)
    if not seed:
        return
    try:
        shutil.copytree(seed, cache_directory(environment), dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        log.warning("vLLM's cache is not filled from %s: %s", seed, error)
