"""The chart's rule file, and promtool."""

import subprocess
from functools import cache
from pathlib import Path

from e2e.cluster import build
from tests.helm import of_kind, rendered


@cache
def rules(*sets: str) -> str:
    """The rule file, as the chart writes it for a Prometheus without the operator."""
    config_maps = of_kind(rendered(*sets), "ConfigMap")
    return str(next(one["data"]["tunewright.yaml"] for one in config_maps if "tunewright.yaml" in one["data"]))


def promtool(*arguments: str | Path) -> None:
    """Run promtool; raises AssertionError with what it said."""
    build.ensure(["promtool"], print)
    done = subprocess.run([build.binary("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
