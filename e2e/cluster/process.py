"""Starting, watching and stopping the cluster's processes; both tiers use this supervisor.

A process is remembered by a file `NAME.json` with its pid and start time, so that a later `status` or `down`, which is
another Python process, finds it again and never mistakes a recycled pid for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.wait import wait_for


@dataclass(frozen=True)
class Service:
    """A process to run: its name (also of its log), its command line and additions to its environment."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def start_ticks(pid: int) -> int | None:
    """The kernel's start time of a live process; None when there is none (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rsplit(")", 1)[1].split()
    return None if state in "ZX" else int(rest[18])


def program(pid: int) -> str:
    """The kernel's name of the program that a process runs; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def die_with_parent(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line with the kernel told to kill it when its parent dies, however that happens."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", *argv) if setpriv else argv


class Supervisor:
    """Runs services whose logs and pid files live in `directory`.

    With `detached` they outlive this process (the node tier); otherwise they die with it (the apiserver tier).
    """

    def __init__(self, directory: Path, *, detached: bool) -> None:
        self.directory = directory
        self._detached = detached
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """The file that holds the standard output and error of a service."""
        return self.directory / "logs" / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self.directory / "pids" / f"{name}.json"

    def names(self) -> list[str]:
        """Every service that was started and not stopped, oldest first."""
        records = (self.directory / "pids").glob("*.json")
        return [path.stem for path in sorted(records, key=lambda path: path.stat().st_mtime_ns)]

    def pid(self, name: str) -> int | None:
        """The pid of a live service."""
        try:
            record = json.loads(self._record(name).read_text())
        except OSError:
            return None
        if child := self._children.get(name):
            child.poll()
        ticks = start_ticks(record["pid"])
        return int(record["pid"]) if ticks is not None and ticks == record["ticks"] else None

    def start(self, service: Service) -> bool:
        """Start the service unless it runs; say whether it was started."""
        if self.pid(service.name):
            return False
        for path in (self.log(service.name), self._record(service.name)):
            path.parent.mkdir(parents=True, exist_ok=True)
        argv = service.argv if self._detached else die_with_parent(service.argv)
        with self.log(service.name).open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **service.env},
                start_new_session=True,
                cwd=self.directory,
            )
        if not self._detached:
            # Until setpriv has become the service, a killed parent would leave it behind.
            wait_for(f"{service.name} bound to its parent", lambda: program(child.pid) != "setpriv", 10, interval=0.002)
        self._children[service.name] = child
        record = {"pid": child.pid, "ticks": start_ticks(child.pid), "argv": service.argv}
        self._record(service.name).write_text(json.dumps(record))
        return True

    def require(self, name: str) -> None:
        """Raise ClusterError with the last lines of the log when the service has ended."""
        if self.pid(name) is None:
            raise ClusterError(f"{name} ended early. {self.tail(name)}")

    def tail(self, name: str, lines: int = 8) -> str:
        """The last lines of a log, introduced by the path of the whole."""
        log = self.log(name)
        text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
        return "\n  ".join([f"See {log}:", *text])

    def stop(self, name: str, *, grace: float = 10) -> None:
        """Ask the service to end, kill it after `grace` seconds, and forget it."""
        pid = self.pid(name)
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if pid is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(ClusterError):
                wait_for(f"end of {name}", lambda: self.pid(name) is None, patience, interval=0.02)
            pid = self.pid(name)
        if child := self._children.pop(name, None):
            child.wait(timeout=10)
        self._record(name).unlink(missing_ok=True)

    def stop_all(self, *, grace: float = 10) -> None:
        """Stop every service, the youngest first."""
        for name in reversed(self.names()):
            self.stop(name, grace=grace)
