"""Images: building one from a single static program, and loading archives into the cluster's containerd."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from e2e.cluster.errors import ClusterError
from e2e.cluster.wait import wait_for

NAMESPACE = "k8s.io"


def ctr_command(socket: Path, *arguments: str) -> list[str]:
    """A command of containerd's own client, in the namespace where the kubelet looks."""
    return ["ctr", f"--address={socket}", f"--namespace={NAMESPACE}", *arguments]


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """An archive of files (content, mode), the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def scratch_image(name: str, program: Path) -> bytes:
    """A docker-archive with nothing but one static program, which it runs as a user without rights."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config: dict[str, Any] = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    return _tar({"layer.tar": (layer, 0o644), **{key: (value, 0o644) for key, value in parts.items()}})


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def digest(archive: bytes) -> str:
    """The SHA-256 of an archive."""
    return hashlib.sha256(archive).hexdigest()


def answers(socket: Path) -> bool:
    """Whether containerd serves requests."""
    if not socket.exists():
        return False
    command = ctr_command(socket, "--timeout=5s", "images", "list", "--quiet")
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def list_images(socket: Path) -> list[str]:
    """The names of the images in the cluster, without containerd's own second names for them."""
    output = _ctr(socket, "images", "list", "--quiet").decode()
    return sorted(name for name in output.split() if not name.startswith("sha256:") and "@sha256:" not in name)


def load_bytes(socket: Path, archive: bytes) -> None:
    """Load an archive from memory."""
    _ctr(socket, "images", "import", "-", stdin=archive)


def imported_names(output: str) -> list[str]:
    """The images that `ctr images import` says it unpacked."""
    lines = (line.split() for line in output.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "unpacking"]


def fingerprint(archive: Path) -> list[int]:
    """What tells a file from its successor under the same name, without reading gigabytes: its size and change time."""
    stat = archive.stat()
    return [stat.st_size, stat.st_mtime_ns]


def load_file(socket: Path, archive: str, memory: Path) -> list[str]:
    """Load a docker-archive or OCI archive, `-` for standard input; return the names of its images.

    `memory` remembers what was loaded: an unchanged file whose images are still there is not read again.
    """
    if archive == "-":
        return _import(socket, archive)
    path = Path(archive).resolve()
    if not path.is_file():
        raise ClusterError(f"{archive} is not a file: give an image archive, or - for standard input.")
    loaded = json.loads(memory.read_text()) if memory.exists() else {}
    before = loaded.get(str(path), {})
    if before.get("fingerprint") == fingerprint(path) and set(before["names"]) <= set(list_images(socket)):
        return list(before["names"])
    names = _import(socket, str(path))
    loaded[str(path)] = {"fingerprint": fingerprint(path), "names": names}
    memory.write_text(json.dumps(loaded))
    return names


def _import(socket: Path, archive: str) -> list[str]:
    command = ctr_command(socket, "images", "import", archive)
    source = sys.stdin if archive == "-" else subprocess.DEVNULL
    done = subprocess.run(command, stdin=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"containerd refused {archive}: give a docker-archive or an OCI archive whose image has a name "
            f"(name:tag). It said: {done.stderr.strip()}"
        )
    return imported_names(done.stdout)


def _ctr(socket: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    command = ctr_command(socket, *arguments)
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def remove_containers(socket: Path) -> None:
    """Kill and forget every container; images stay."""

    def no_tasks() -> bool:
        tasks = _names(socket, "tasks")
        for task in tasks:
            # A pod's containers share one shim, which ends with the last of them: a failure here means little.
            command = ctr_command(socket, "tasks", "delete", "--force", task)
            subprocess.run(command, capture_output=True, check=False)
        return not tasks

    wait_for("end of every container", no_tasks, 30)
    if containers := _names(socket, "containers"):
        _ctr(socket, "containers", "delete", *containers)


def _names(socket: Path, kind: str) -> list[str]:
    return _ctr(socket, kind, "list", "--quiet").decode().split()
