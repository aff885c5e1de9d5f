"""The apiserver takes the objects of examples/canary, and prunes no field of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.apiserver import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "canary"


@pytest.fixture(scope="module")
def quickstart(plane: ControlPlane) -> None:
    """The namespace, without the claim, for which this control plane has no volume."""
    plane.kubectl("create", "namespace", "quickstart")


@pytest.mark.usefixtures("quickstart")
@pytest.mark.parametrize("name", ["inferenceservice.yaml", "finetunejob-v2.yaml", "finetunejob-v3.yaml"])
def test_the_example_is_accepted_as_it_is_written(plane: ControlPlane, name: str) -> None:
    text = (EXAMPLE / name).read_text()
    stored = json.loads(plane.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=text))
    assert missing(yaml.safe_load(text)["spec"], stored["spec"]) == []


def missing(written: Any, stored: Any, path: str = "spec") -> list[str]:
    """Paths of what was written and is not stored like that; defaults may be added."""
    if isinstance(written, dict) and isinstance(stored, dict):
        return [hit for key, value in written.items() for hit in missing(value, stored.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(stored, list) and len(written) == len(stored):
        pairs = enumerate(zip(written, stored, strict=True))
        return [hit for n, (one, other) in pairs for hit in missing(one, other, f"{path}[{n}]")]
    return [] if written == stored else [path]
