"""Data and volumes that cannot work end in a condition that says so, with the line, and cost no training pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.demo import quickstart
from e2e.demo.kubectl import condition, is_true, poll
from e2e.scenarios.conftest import Platform

pytestmark = pytest.mark.node

NAMESPACE = quickstart.NAMESPACE
GOOD = json.dumps({"instruction": "Which kind trains?", "output": "A FineTuneJob trains."})

# file name -> content, and the words that status must say
WRONG: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bad-json": ("\n".join([GOOD] * 6 + ['{"instruction": '] + [GOOD] * 3), "InvalidData", ("line 7", "JSON")),
    "no-answer": ("\n".join([GOOD] * 2 + ['{"instruction": "Why?"}']), "InvalidData", ("line 3", "output")),
    "nothing": ("", "InvalidData", ("has no records",)),
    "secret": (GOOD, "InputNotReadable", ("permission", "secret.jsonl")),
}


def job(name: str, dataset: str, output: str, **spec: Any) -> dict[str, Any]:
    """A small FineTuneJob of the quickstart's namespace."""
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "baseModel": {"uri": "pvc://quickstart/base-model"},
            "dataset": {"uri": dataset, "format": "Alpaca"},
            "method": {"lora": {}},
            "hyperparameters": {"maxSteps": 2, "sequenceLength": 64, "precision": "FP32"},
            "resourcesPerNode": {"cpu": "500m", "memory": "4Gi"},
            "output": {"uri": output, "modelName": name, "version": "v1"},
            **spec,
        },
    }


def ended(platform: Platform, name: str, timeout: float = 400) -> dict[str, Any]:
    """The job once it failed or is complete, from which it is then removed."""
    found = poll(
        lambda: platform.kubectl.get("finetunejob", name, NAMESPACE),
        lambda document: is_true(document, "Failed") or is_true(document, "Complete"),
        timeout,
    )
    platform.kubectl.run("delete", "ftj", name, "-n", NAMESPACE, "--wait=true", "--timeout=60s")
    return found


@pytest.fixture(scope="module")
def wrong_files(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The wrong files in the quickstart's claim; the one called secret cannot be read by the trainer's user."""
    folder: Path = tmp_path_factory.mktemp("wrong")
    for name, (content, _, _) in WRONG.items():
        (folder / f"{name}.jsonl").write_text(content)
    (folder / "secret.jsonl").chmod(0)
    quickstart.upload(platform.kubectl, platform.images["trainer"], {"wrong": folder})


@pytest.mark.usefixtures("wrong_files")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_is_named_by_line(platform: Platform, name: str) -> None:
    _, reason, words = WRONG[name]
    platform.kubectl.apply(yaml.safe_dump(job(name, f"pvc://quickstart/wrong/{name}.jsonl", "pvc://quickstart/models")))
    status = ended(platform, name)
    ready = condition(status, "DatasetReady")
    assert ready
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert [word for word in words if word not in ready["message"]] == []
    assert condition(status, "Trained") is None or not is_true(status, "Trained")


def test_a_full_volume_is_named(platform: Platform) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "tiny", "namespace": NAMESPACE},
        "spec": {
            "storageClassName": "small",
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    spec = job("full", "pvc://quickstart/dataset/train.jsonl", "pvc://tiny/models", checkpoint={"everySteps": 1})
    platform.kubectl.apply(yaml.safe_dump_all([claim, spec]))
    status = ended(platform, "full")
    failed = condition(status, "Failed")
    assert failed
    assert failed["reason"] == "VolumeFull"
    assert "/mnt/claims/tiny" in failed["message"]
    platform.kubectl.run("delete", "pvc", "tiny", "-n", NAMESPACE, "--wait=false")
