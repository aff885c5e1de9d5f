"""The real operator as a process, on the chart's objects and with the chart's permissions."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.apiserver import ControlPlane, free_ports
from e2e.cluster.wait import wait_for
from tests.helm import CHART, NAMESPACE, helm

SERVICE_ACCOUNT = "tunewright"
USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"


def install_chart(plane: ControlPlane, *sets: str) -> None:
    """helm upgrade --install, without waiting: the operator's own Deployment has no node to run on."""
    values = [argument for value in sets for argument in ("--set", value)]
    helm(
        *("upgrade", "--install", "tunewright", str(CHART), "--namespace", NAMESPACE, "--create-namespace"),
        *("--kubeconfig", str(plane.kubeconfig), *values),
    )
    wait_for("our kinds", lambda: plane.exists("/apis/tunewright.io/v1alpha1"), 30)


@dataclass
class Operator:
    """A running operator; `log` holds what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None


@contextmanager
def running_operator(plane: ControlPlane, directory: Path, **environment: str) -> Iterator[Operator]:
    """Start the operator as its ServiceAccount; SIGTERM at the end. `environment` adds TUNEWRIGHT_* settings."""
    directory.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    log = directory / f"operator-{port}.log"
    env = os.environ | {
        "KUBECONFIG": str(plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)),
        "TUNEWRIGHT_TRAINER_IMAGE": "tunewright/trainer:test",
        "TUNEWRIGHT_SERVER_IMAGE": "tunewright/server:test",
        "TUNEWRIGHT_NAMESPACE": NAMESPACE,
        "TUNEWRIGHT_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tunewright_operator"]
        process = subprocess.Popen(command, env=env | environment, stdout=output, stderr=subprocess.STDOUT)
    operator = Operator(process, log)
    try:
        yield operator
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def settled_writes(plane: ControlPlane, seconds: float) -> list[str]:
    """What the operator writes within the next `seconds`."""
    mark = plane.audit.mark()
    time.sleep(seconds)
    return [f"{event.verb} {event.uri}" for event in plane.audit.writes(user=USER, since=mark)]
