"""Start the supervisor as the kubelet would, ask its endpoints, and steer the fake vLLM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunewright_api.artifact import MANIFEST, Manifest, compute_digest, list_files
from tunewright_api.results import StageResult

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAKE_VLLM = (sys.executable, str(HERE / "fake_vllm.py"))

IDENTITY = {"namespace": "shop", "service": "guide", "version": "guide-v1", "revision": "0a1b2c3d"}

# Seconds: as in production, but impatient.
FAST = {
    "LOADING_POLL": 0.02,
    "CHECK": 0.05,
    "COMPLETION": 0.2,
    "RETRY": 0.05,
    "COMPLETION_TIMEOUT": 0.5,
    "PERFORMANCE_TIMEOUT": 0.5,
    "DRAIN_MIN": 0.1,
    "DRAIN_IDLE": 0.1,
    "DRAIN_POLL": 0.02,
    "ENGINE_STOP": 5,
}


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.01)
    return value


def write_artifact(root: Path, kind: str = "Full", files: dict[str, str] | None = None) -> str:
    """A small artifact with a true manifest; returns its digest."""
    for path, text in (files or {"model/config.json": "{}", "model/model.safetensors": "weights"}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return write_manifest(root, kind)


def write_manifest(root: Path, kind: str = "Full") -> str:
    """The manifest of what is in the directory; returns the digest."""
    listed = list_files(root)
    digest = compute_digest(listed)
    manifest = Manifest(job_uid="u", kind=kind, base_model="pvc://models/base", files=listed, digest=digest)
    (root / MANIFEST).write_text(json.dumps(manifest.to_dict()))
    return digest


class Server:
    """A supervisor in a process of its own, with its configuration in a temporary directory."""

    def __init__(self, directory: Path, **overrides: Any) -> None:
        self.directory = directory
        self.artifact = directory / "artifact"
        self.port, self.health_port = free_port(), free_port()
        self.overrides = overrides
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str] = FAKE_VLLM,
        script: dict[str, Any] | None = None,
        settings: dict[str, float] | None = None,
        environment: dict[str, str] | None = None,
    ) -> "Server":
        """Write config.json (and an artifact unless there is one) and start the process."""
        digest = self.overrides.pop("digest", None) or write_artifact(self.artifact)
        config = {
            "model": {"artifact": str(self.artifact), "digest": digest, "servedName": "demo"},
            "identity": IDENTITY,
            "port": self.port,
            "healthPort": self.health_port,
        } | self.overrides
        (self.directory / "config.json").write_text(json.dumps(config))
        timings = {f"TUNEWRIGHT_SERVER_{key}": str(value) for key, value in (FAST | (settings or {})).items()}
        variables = {
            **os.environ,
            **(environment or {}),
            **timings,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "server_image")),
            "TERMINATION_LOG_PATH": str(self.directory / "termination-log"),
            "VLLM_SERVER_DEV_MODE": "1",
            "FAKE_VLLM": json.dumps({"files": str(self.directory)} | (script or {})),
        }
        with (self.directory / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "run_server.py"), str(self.directory / "config.json"), *command],
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the health port; (0, {}) while it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/metrics", timeout=5) as response:
            return str(response.read().decode())

    def state(self) -> str:
        """The state that /ready shows, or ''."""
        return str(self.get("/ready")[1].get("state", ""))

    def wait_ready(self, seconds: float = 20.0) -> None:
        """Until /ready is 200."""
        wait_for(lambda: self.get("/ready")[0] == 200 or self.ended(), seconds)
        assert self.get("/ready")[0] == 200, self.output()

    def touch(self, name: str) -> None:
        """Steer the fake vLLM."""
        (self.directory / name).touch()

    def terminate(self) -> None:
        """What the kubelet sends."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 20.0) -> int:
        """The exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def result(self) -> StageResult:
        """The termination message."""
        result = StageResult.from_message((self.directory / "termination-log").read_text())
        assert result is not None
        return result

    def output(self) -> str:
        """What the container logged."""
        return (self.directory / "output").read_text(errors="replace")

    def stop(self) -> None:
        """End the process whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process is not None and self.process.poll() is not None
