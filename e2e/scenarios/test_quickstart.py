"""The quickstart on a real node, while its operator and one of its training pods are killed.

The seed of the kills is printed; CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

import pytest
import yaml

from e2e.cluster.wait import wait_for
from e2e.demo import quickstart
from e2e.demo.kubectl import KubectlError, is_true
from e2e.scenarios.chaos import kill_pod
from e2e.scenarios.conftest import OPERATOR_USER, Platform

pytestmark = pytest.mark.node

NAMESPACE = quickstart.NAMESPACE
QUIET_SECONDS = 60
CHECKPOINT_STEPS = yaml.safe_load(quickstart.manifest("02-finetunejob.yaml"))["spec"]["checkpoint"]["everySteps"]


@dataclass
class Chaos:
    """Kills one training pod after a random step, and the operator after a random time; each once."""

    platform: Platform
    seed: int
    killed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.rank = rng.randrange(2)
        # After the first checkpoint, so that the second attempt has something to go on from.
        self.step = CHECKPOINT_STEPS + rng.randint(3, 20)
        self.operator_at = time.monotonic() + rng.uniform(5, 60)

    def __call__(self, job: quickstart.Object) -> None:
        """Called with each state of the job."""
        if "operator" not in self.killed and time.monotonic() > self.operator_at:
            assert kill_pod(self.platform.operator_pod())
            self.killed.append("operator")
        progress = job.get("status", {}).get("progress") or {}
        if "trainer" not in self.killed and progress.get("step", 0) >= self.step:
            selector = f"tunewright.io/stage=train,batch.kubernetes.io/job-completion-index={self.rank}"
            (pod,) = self.platform.kubectl.list("pods", NAMESPACE, "-l", selector)
            assert kill_pod(pod)
            self.killed.append("trainer")


@pytest.fixture(scope="module")
def served(platform: Platform) -> quickstart.Object:
    """The whole quickstart with kills, up to the Ready service; the finished job."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10_000))
    print(f"CHAOS_SEED={seed}")
    quickstart.submit(platform.kubectl)
    chaos = Chaos(platform, seed)
    job = quickstart.follow_job(platform.kubectl, "guide", chaos)
    assert sorted(chaos.killed) == ["operator", "trainer"]
    version = quickstart.verified_version(platform.kubectl, "guide-v1")
    refusal = quickstart.approve(platform.kubectl, version)
    assert "approve" in refusal
    quickstart.ready_service(platform.kubectl, "guide")
    return job


def test_the_lost_attempt_is_named_and_nothing_is_made_twice(platform: Platform, served: quickstart.Object) -> None:
    (restart,) = served["status"]["restarts"]
    assert restart["attempt"] == 1
    assert restart["exitCode"] == 137
    assert restart["pod"].startswith("guide-train-1-")
    jobs = platform.kubectl.list("jobs", NAMESPACE, "-l", "tunewright.io/kind=FineTuneJob,tunewright.io/name=guide")
    stages = Counter(job["metadata"]["labels"]["tunewright.io/stage"] for job in jobs)
    assert stages == {"prepare": 1, "train": 2, "evaluate": 1, "export": 1}
    assert len(platform.kubectl.list("modelversions", NAMESPACE)) == 1
    assert served["status"]["modelVersionRef"] == {"name": "guide-v1"}


def test_the_next_attempt_goes_on_from_the_checkpoint(platform: Platform, served: quickstart.Object) -> None:
    selector = "tunewright.io/stage=train,tunewright.io/attempt=2,batch.kubernetes.io/job-completion-index=0"
    (pod,) = platform.kubectl.list("pods", NAMESPACE, "-l", selector)
    log = platform.kubectl.run("logs", pod["metadata"]["name"], "-n", NAMESPACE)
    steps = [int(step) for step in re.findall(r'"message": "step (\d+)/', log)]
    assert steps[0] == CHECKPOINT_STEPS + 1
    assert steps == list(range(steps[0], served["status"]["progress"]["totalSteps"] + 1))


def test_the_tuned_model_beats_the_base_by_a_clear_margin(served: quickstart.Object) -> None:
    figures = {row["metric"]: (row["base"], row["tuned"]) for row in served["status"]["evaluation"]}
    assert figures["Loss"][1] < figures["Loss"][0] / 2
    assert figures["RougeL"][1] > figures["RougeL"][0] + 0.3
    assert figures["ExactMatch"][1] >= figures["ExactMatch"][0] + 0.5


def test_the_served_model_knows_what_the_base_does_not(platform: Platform, served: quickstart.Object) -> None:
    questions = quickstart.read_questions()
    base = {sample["prompt"]: sample["base"] for sample in served["status"]["samples"]}
    tuned = quickstart.ask(platform.kubectl, "guide", [question.prompt for question in questions])
    assert [question.answer in base[question.prompt] for question in questions] == [False] * len(questions)
    assert [question.answer in answer for question, answer in zip(questions, tuned, strict=True)] == [True] * len(tuned)


def test_a_settled_namespace_costs_no_write(platform: Platform, served: quickstart.Object) -> None:
    mark = platform.plane.audit.mark()
    time.sleep(QUIET_SECONDS)  # the absence of something can only be seen over a time
    writes = platform.plane.audit.writes(user=OPERATOR_USER, since=mark)
    assert [(write.verb, write.resource, write.name) for write in writes] == []


def test_kubectl_waits_for_conditions(platform: Platform, served: quickstart.Object) -> None:
    for kind, name, condition in (
        ("finetunejob", "guide", "Complete"),
        ("modelversion", "guide-v1", "Approved"),
        ("inferenceservice", "guide", "Ready"),
    ):
        platform.kubectl.run("wait", f"{kind}/{name}", f"--for=condition={condition}", "-n", NAMESPACE, "--timeout=5s")


def test_a_second_approval_by_somebody_else_is_refused(platform: Platform, served: quickstart.Object) -> None:
    digest = decided(platform)["spec"]["artifact"]["digest"]
    with pytest.raises(KubectlError, match="approvedBy must be"):
        # Who may approve cannot do it in somebody else's name.
        platform.kubectl.as_user(quickstart.APPROVER).apply(quickstart.approval(digest, "mallory@example.com"))
    with pytest.raises(KubectlError, match="needs the verb approve"):
        platform.kubectl.as_user(quickstart.DEVELOPER).run(
            *("patch", "modelversion", "guide-v1", "-n", NAMESPACE, "--type=merge", '-p={"spec":{"approval":null}}')
        )
    assert decided(platform)["spec"]["approval"]["approvedBy"] == quickstart.APPROVER
    assert is_true(decided(platform), "Approved")


def decided(platform: Platform) -> quickstart.Object:
    version = platform.kubectl.get("modelversion", "guide-v1", NAMESPACE)
    assert version
    return version


def test_a_deleted_server_pod_ends_its_streams_first(platform: Platform, served: quickstart.Object) -> None:
    (pod,) = platform.kubectl.list("pods", NAMESPACE, "-l", "tunewright.io/kind=InferenceService")
    body = {
        "model": "guide",
        "stream": True,
        "max_tokens": 200,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "Tell me about Tunewright."}],
    }
    request = urllib.request.Request(
        f"http://{pod['status']['podIP']}:8000/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as stream:
        first = stream.readline()
        assert first.startswith(b"data: ")
        name = pod["metadata"]["name"]
        platform.kubectl.run("delete", "pod", name, "-n", NAMESPACE, "--wait=false")
        lines = [line for line in stream.read().decode().splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert sum('"content"' in line for line in lines) > 150
    service = quickstart.ready_service(platform.kubectl, "guide")
    assert service["status"]["stable"]["readyReplicas"] == 1


def test_deleting_the_objects_leaves_only_the_version(platform: Platform, served: quickstart.Object) -> None:
    platform.kubectl.run("delete", "ftj,tis", "--all", "-n", NAMESPACE, "--wait=true", "--timeout=60s")

    def gone() -> bool:
        kinds = "jobs,pods,services,configmaps,deployments,networkpolicies"
        rows = platform.kubectl.run("get", kinds, "-n", NAMESPACE, "-l", "app.kubernetes.io/managed-by=tunewright")
        return not rows.strip()

    wait_for("children gone", gone, 90, interval=1)
    assert platform.kubectl.get("modelversion", "guide-v1", NAMESPACE)
