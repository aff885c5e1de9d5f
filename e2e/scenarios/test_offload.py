"""Training whose weights and optimizer states wait on the disk of its pod, with the extension in our image."""

from __future__ import annotations

import json

import pytest
import yaml

from e2e.demo.kubectl import is_true, poll
from e2e.scenarios.conftest import Platform
from e2e.scenarios.test_wrong_data import NAMESPACE, job

pytestmark = pytest.mark.node


def test_a_job_that_offloads_to_nvme_is_trained(platform: Platform) -> None:
    nvme = {"zeroStage": 3, "offloadOptimizer": "NVMe", "offloadParameters": "NVMe", "nvme": {"size": "8Gi"}}
    spec = job(
        "on-disk",
        "pvc://quickstart/dataset/train.jsonl",
        "pvc://quickstart/models",
        method={"full": {}},
        distributed={"deepspeed": nvme},
        hyperparameters={"maxSteps": 2, "sequenceLength": 64, "precision": "BF16"},
        checkpoint={"everySteps": 1},
        resourcesPerNode={"cpu": "1", "memory": "6Gi"},
    )
    platform.kubectl.apply(yaml.safe_dump(spec))
    try:
        trained = poll(
            lambda: platform.kubectl.get("finetunejob", "on-disk", NAMESPACE),
            lambda document: is_true(document, "Trained") or is_true(document, "Failed"),
            600,
        )
        assert is_true(trained, "Trained"), json.dumps(trained["status"], indent=2)
        (pod,) = platform.kubectl.list("pods", NAMESPACE, "-l", "tunewright.io/name=on-disk,tunewright.io/stage=train")
        log = platform.kubectl.run("logs", pod["metadata"]["name"], "-n", NAMESPACE)
    finally:
        platform.kubectl.run("delete", "ftj", "on-disk", "-n", NAMESPACE, "--wait=true", "--timeout=60s")
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["nvme"]["emptyDir"] == {"sizeLimit": "8Gi"}
    assert "checkpoint saved" in log
