"""kubectl as the demo and the scenarios use it: objects in, objects out, errors as sentences."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from e2e.cluster.build import kubectl as kubectl_path

Object = dict[str, Any]


class KubectlError(Exception):
    """kubectl ended with an error; the message is what it said."""


class Kubectl:
    """kubectl with one kubeconfig, and for `user` if one is given (by impersonation)."""

    def __init__(self, kubeconfig: Path, user: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        self._command = [kubectl_path(), f"--kubeconfig={kubeconfig}", *([f"--as={user}"] if user else [])]

    def as_user(self, user: str) -> Kubectl:
        """The same cluster as somebody else."""
        return Kubectl(self.kubeconfig, user)

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """Run a command and return what it printed; raise KubectlError with what it complained of."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*self._command, *arguments], input=data, capture_output=True, check=False)
        if done.returncode:
            raise KubectlError(done.stderr.decode().strip() or done.stdout.decode().strip())
        return done.stdout.decode()

    def get(self, kind: str, name: str, namespace: str) -> Object | None:
        """One object, or None when it does not exist."""
        text = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else None

    def list(self, kind: str, namespace: str, *arguments: str) -> list[Object]:
        """All objects of a kind in a namespace."""
        items: list[Object] = json.loads(self.run("get", kind, "-n", namespace, "-o", "json", *arguments))["items"]
        return items

    def apply(self, manifest: str) -> None:
        """Server-side apply, as somebody who commits YAML."""
        self.run("apply", "--server-side", "-f", "-", stdin=manifest)

    @contextlib.contextmanager
    def port_forward(self, target: str, namespace: str, port: int) -> Iterator[str]:
        """Forward a free local port to a Service or pod; yields `http://127.0.0.1:PORT`."""
        command = [*self._command, "port-forward", "-n", namespace, target, f":{port}", "--address=127.0.0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                if not match:
                    assert process.stderr is not None
                    raise KubectlError(f"cannot forward to {target}: {process.stderr.read().strip()}")
                yield f"http://127.0.0.1:{match[1]}"
            finally:
                process.terminate()


def condition(document: Object, kind: str) -> Object | None:
    """A condition of the object's status, or None."""
    conditions = document.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), None)


def is_true(document: Object, kind: str) -> bool:
    """Whether the condition is True for the object's current generation."""
    found = condition(document, kind)
    return bool(
        found
        and found["status"] == "True"
        and found.get("observedGeneration") in (None, document["metadata"].get("generation"))
    )


def poll(read: Callable[[], Object | None], until: Callable[[Object], bool], timeout: float) -> Object:
    """Read once a second until the object satisfies `until`; TimeoutError tells its last message."""
    deadline = time.monotonic() + timeout
    while True:
        document = read()
        if document and until(document):
            return document
        if time.monotonic() > deadline:
            said = (document or {}).get("status", {}).get("message") or "nothing"
            raise TimeoutError(f"not so after {timeout:.0f} s; the last status said: {said}")
        time.sleep(1)
