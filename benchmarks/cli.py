"""How long people wait for the command line: `python -m benchmarks.cli`.

A real apiserver with 1,000 objects of ours. Prints, from the start of the process to the first byte that it prints,
the median and range of ten runs of `tunewright get` and of the other first screens.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.cluster import build
from e2e.cluster.apiserver import ControlPlane, running_apiserver
from e2e.cluster.wait import wait_for
from tests import cli_objects as objects

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = 1000
RUNS = 10
NAMESPACE = "team"
API = "/apis/tunewright.io/v1alpha1"
PLURALS = {"FineTuneJob": "finetunejobs", "ModelVersion": "modelversions", "InferenceService": "inferenceservices"}
SCREENS = (
    ("--help",),
    ("get",),
    ("get", "-A"),
    ("get", "guide-7"),
    ("get", "guide-7", "-w"),
    ("get", "-o", "json"),
    ("why", "tis/guide-7"),
    ("check",),
)


def main() -> None:
    """Measure and print."""
    build.ensure(build.APISERVER_TIER)
    with tempfile.TemporaryDirectory() as directory, running_apiserver(Path(directory, "plane")) as plane:
        fill(plane)
        kubeconfig = yaml_kubeconfig(plane, Path(directory))
        print(
            f"{OBJECTS} objects, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; milliseconds to the first byte"
        )
        for screen in SCREENS:
            times = [first_byte(screen, kubeconfig) for _ in range(RUNS)]
            name = "tunewright " + " ".join(screen)
            print(f"{name:28} median {statistics.median(times):4.0f}  ({min(times):.0f} to {max(times):.0f})")


def fill(plane: ControlPlane) -> None:
    """Jobs, versions and services in equal parts, with the statuses that an operator would write."""
    crds = [argument for path in sorted((ROOT / "crds").glob("*.yaml")) for argument in ("-f", str(path))]
    plane.kubectl("apply", "--server-side", *crds)
    wait_for("the kinds served", lambda: all(plane.exists(f"{API}/{plural}") for plural in PLURALS.values()), 30)
    plane.kubectl("create", "namespace", NAMESPACE)
    made = [one for number in range(OBJECTS // 3 + 1) for one in chain(number)][:OBJECTS]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: create(plane, one), made))


def chain(number: int) -> list[dict[str, Any]]:
    """A job, its version and the service that serves it."""
    name, model = f"guide-{number}", f"m{number}"
    job = objects.job(name)
    job["spec"]["output"]["modelName"] = model
    version = objects.version(made_by=name, model=model)
    return [job, version, objects.service(name, f"{model}-v1")]


def create(plane: ControlPlane, one: dict[str, Any]) -> None:
    """POST the object, then its status."""
    path = f"{API}/namespaces/{NAMESPACE}/{PLURALS[one['kind']]}"
    body = one | {"metadata": {"name": one["metadata"]["name"], "namespace": NAMESPACE}}
    plane.api.create(path, body)
    plane.api.merge(f"{path}/{one['metadata']['name']}/status", {"status": one["status"]})


def yaml_kubeconfig(plane: ControlPlane, directory: Path) -> Path:
    """The kubeconfig as kubectl writes it, in YAML, with a namespace."""
    path = directory / "config.yaml"
    path.touch(mode=0o600)
    config = plane.kubectl("config", "view", "--raw", "--minify", "-o", "yaml")
    path.write_text(config.replace("    user: user", f"    user: user\n    namespace: {NAMESPACE}"))
    return path


def first_byte(arguments: Sequence[str], kubeconfig: Path) -> float:
    """Milliseconds from the start of the process to the first byte on its standard output."""
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'cli'}"}
    command = [sys.executable, "-m", "tunewright_cli", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        read = process.stdout.read(1)
        spent = time.perf_counter() - started
        process.terminate()
        if not read:
            raise SystemExit(f"tunewright {' '.join(arguments)} printed nothing: {process.stderr.read().decode()}")
    return spent * 1000


if __name__ == "__main__":
    main()
