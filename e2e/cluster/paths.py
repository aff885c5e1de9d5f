"""Where things lie: everything the cluster writes is below one cache directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def cache_root() -> Path:
    """The cache directory: `$TUNEWRIGHT_CACHE`, by default `~/.cache/tunewright`."""
    configured = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(configured).expanduser().resolve() if configured else Path.home() / ".cache" / "tunewright"


@dataclass(frozen=True)
class Layout:
    """The directories of one node-tier cluster.

    `run` is removed by `down`; `images` stays, so that the next `up` finds every loaded image again.
    """

    cache: Path

    @property
    def run(self) -> Path:
        return self.cache / "run"

    @property
    def images(self) -> Path:
        return self.cache / "containerd"

    @property
    def last_logs(self) -> Path:
        return self.cache / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.run / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.run / "control-plane" / "audit.log"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def mesh(self) -> Path:
        return self.run / "mesh"

    @property
    def lock(self) -> Path:
        return self.cache / "cluster.lock"

    @property
    def volumes(self) -> Path:
        return self.run / "volumes"
