"""The real helm on the real chart, for tests."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import build

CHART = Path(__file__).resolve().parents[1] / "charts" / "tunewright"
NAMESPACE = "tunewright-system"

Object = dict[str, Any]


class HelmError(Exception):
    """helm ended badly; the message is what it said."""


def helm(*arguments: str) -> str:
    """Run helm; returns its output."""
    build.ensure(["helm"], print)
    done = subprocess.run([build.binary("helm"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


@cache
def template(*sets: str, namespace: str = NAMESPACE) -> str:
    """The rendered chart, with `--set` values."""
    values = [argument for value in sets for argument in ("--set", value)]
    return helm("template", "tunewright", str(CHART), "--namespace", namespace, *values)


def rendered(*sets: str) -> list[Object]:
    """Every object of the rendered chart."""
    return [document for document in yaml.safe_load_all(template(*sets)) if document]


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]
