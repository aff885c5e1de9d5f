"""`helm --wait` (kstatus) and `kubectl wait` on FineTuneJobs: they neither return early nor hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.cluster.wait import wait_for
from tests.helm import HelmError, helm
from tests.integration.conftest import Namespace, Operator, conditions, create_claim
from tests.integration.kubelet import Kubelet, Play, failure
from tunewright_api.names import ExitCode

SECONDS = 90
"""What helm would wait at most; a test that takes so long has failed."""


@pytest.fixture
def install(namespace: Namespace, tmp_path: Path) -> Callable[..., threading.Thread]:
    """Start `helm install --wait` of a chart with one FineTuneJob; its error, if any, is in the thread's `error`."""

    def start(**spec: object) -> threading.Thread:
        template = namespace.create_job("template", **spec)
        namespace.plane.api.delete(namespace.path("finetunejobs", "template"))
        manifest = {key: template[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "guide"}}
        manifest["spec"]["output"]["modelName"] = "guide"
        (tmp_path / "templates").mkdir()
        (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: guide\nversion: 0.1.0\n")
        (tmp_path / "templates" / "job.yaml").write_text(json.dumps(manifest))
        location = ("--namespace", namespace.name, "--kubeconfig", str(namespace.plane.kubeconfig))

        def run() -> None:
            try:
                helm("install", "guide", str(tmp_path), *location, "--wait", f"--timeout={SECONDS}s")
            except HelmError as error:
                waiting.error = str(error)  # type: ignore[attr-defined]

        waiting = threading.Thread(target=run, daemon=True)
        waiting.error = ""  # type: ignore[attr-defined]
        waiting.start()
        wait_for("helm created the job", lambda: namespace.plane.exists(namespace.path("finetunejobs", "guide")), 30)
        return waiting

    return start


def test_helm_waits_until_the_job_trains(
    namespace: Namespace, operator: Operator, kubelet: Kubelet, install: Callable[..., threading.Thread]
) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None
    waiting = install(dataset={"uri": "pvc://late/train.jsonl", "format": "Alpaca"})
    waiting.join(2)
    assert waiting.is_alive(), "helm returned although nobody has looked at the job"
    operator.start()
    namespace.wait_job("the missing claim", lambda status: conditions(status).get("Accepted", ("",))[0] == "False")
    waiting.join(3)
    assert waiting.is_alive(), "helm returned although the job waits for a claim"
    create_claim(namespace, "late")
    namespace.wait_job("training", lambda status: status.get("stage") == "Training")
    waiting.join(SECONDS)
    assert waiting.error == ""  # type: ignore[attr-defined]
    assert namespace.job()["status"]["stage"] == "Training", "like a batch Job, one that runs is what was asked for"


def test_helm_fails_at_once_when_the_data_is_wrong(
    namespace: Namespace, operator: Operator, kubelet: Kubelet, install: Callable[..., threading.Thread]
) -> None:
    wrong = failure(ExitCode.INVALID_DATA, "train.jsonl, line 7: not JSON")
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: wrong
    waiting = install()
    operator.start()
    namespace.wait_job("the job failed", lambda status: "Failed" in conditions(status))
    wait_for("helm's end", lambda: not waiting.is_alive(), SECONDS / 3)
    assert "guide" in waiting.error  # type: ignore[attr-defined]


def test_kubectl_waits_for_the_end(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    namespace.create_job()
    namespace.plane.kubectl("wait", "ftj/guide", "-n", namespace.name, "--for=condition=Complete", "--timeout=60s")
    assert "Complete" in conditions(namespace.job()["status"])
