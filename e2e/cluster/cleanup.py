"""What containerd and the kubelet leave behind, removed or put back: mounts, shims, links, kernel settings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from e2e.cluster.wait import wait_for

# What the kubelet writes at start. Namespaced network settings are not here: they go with the namespace.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Folders that containerd and the kubelet make outside the run directory in any case, the deepest first.
CNI_RESULTS = Path("/var/lib/cni/results")
SHARED_FOLDERS = (
    "/run/containerd/s",
    "/run/containerd/fifo",
    "/run/containerd",
    "/var/log/containers",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
)


def remember_surroundings(file: Path) -> None:
    """Note the kernel's settings, and which of the shared folders were there before us."""
    if file.exists():
        return
    settings = {name: _setting(name).read_text().strip() for name in KERNEL_SETTINGS if _setting(name).exists()}
    folders = [name for name in SHARED_FOLDERS if Path(name).exists()]
    file.write_text(json.dumps({"settings": settings, "folders": folders}))


def restore_surroundings(file: Path, run: Path) -> None:
    """Put the settings back; remove links into `run`, and each shared folder that is ours and empty."""
    if not file.exists():
        return
    remembered = json.loads(file.read_text())
    for name, value in remembered["settings"].items():
        if _setting(name).read_text().strip() != value:
            _setting(name).write_text(value)
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(run)):
            link.unlink()
    for result in our_cni_results(CNI_RESULTS):
        result.unlink()
    for name in SHARED_FOLDERS:
        if name not in remembered["folders"]:
            (Path(name) / "kubelet.sock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                Path(name).rmdir()


def our_cni_results(directory: Path) -> list[Path]:
    """What the CNI library remembers of our pods: the entries of our network, and of the loopback of the same pods."""
    pods = [path.name.removeprefix("tunewright-").removesuffix("-eth0") for path in directory.glob("tunewright-*")]
    return [path for pod in pods for path in directory.glob(f"*-{pod}-*")]


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def mounts_below(directory: Path, mounts: str) -> list[str]:
    """The mount points below a directory, the deepest first, from the text of /proc/self/mounts."""
    points = [line.split()[1].encode().decode("unicode_escape") for line in mounts.splitlines()]
    return sorted((point for point in points if point.startswith(f"{directory}/")), key=len, reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory."""
    for point in mounts_below(directory, Path("/proc/self/mounts").read_text()):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def shims(socket: Path) -> list[int]:
    """The pids of the container shims that belong to the containerd at `socket`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "containerd-shim" in argv[0] and str(socket) in argv:
                found.append(int(directory.name))
    return found


def kill_shims(socket: Path) -> None:
    """Kill the shims of the containerd at `socket` and wait until they are gone."""

    def gone() -> bool:
        for pid in (left := shims(socket)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for("end of the container shims", gone, 10)
