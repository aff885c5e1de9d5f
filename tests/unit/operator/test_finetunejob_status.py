"""FineTuneJob: the status contract in every state, read by kstatus."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.kstatus import KStatus, kstatus
from tests.serving import claim, conditions, version
from tests.training import CONFIG, DIGEST, NOW, RESULTS, TIME, Cluster, advance, failed_result, job, settle, turn
from tunewright_api.finetunejob_status import FineTuneJobStatus
from tunewright_api.names import ExitCode, Stage
from tunewright_api.results import Progress, StageResult, TrainResult
from tunewright_operator.kube.errors import Forbidden
from tunewright_operator.policies.course import MAX_REPEATS
from tunewright_operator.reconcile import finetunejob as reconciler
from tunewright_operator.status.progress import compute_progress, finish_progress

Object = dict[str, Any]
Arrange = Callable[[Cluster, Object], Awaitable[None]]


@pytest.fixture(autouse=True)
def silent_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod of these tests can be reached."""

    async def nothing(host: str, port: int) -> None:
        return None

    monkeypatch.setattr(reconciler, "fetch_progress", nothing)


@dataclass(frozen=True)
class Case:
    """How to get there, and what the status must say."""

    name: str
    arrange: Arrange
    stage: str
    want: dict[str, tuple[str, str]]
    verdict: KStatus
    says: str
    changes: Object | None = None


ACCEPTED = {"Accepted": ("True", "Accepted")}
PREPARED = ACCEPTED | {"DatasetReady": ("True", "Succeeded")}
TRAINED = PREPARED | {"Trained": ("True", "Succeeded")}
EVALUATED = TRAINED | {"Evaluated": ("True", "Succeeded")}


def failing(reason: str) -> dict[str, tuple[str, str]]:
    """Failed, for people and for kstatus."""
    return {"Failed": ("True", reason), "Stalled": ("True", reason)}


def reconciling(reason: str) -> dict[str, tuple[str, str]]:
    """In progress for kstatus."""
    return {"Reconciling": ("True", reason)}


def unschedulable() -> list[Object]:
    """Conditions of a pod that the scheduler cannot place."""
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    return [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]


async def no_claim(cluster: Cluster, obj: Object) -> None:
    cluster.objects.clear()


async def claim_of_one_node(cluster: Cluster, obj: Object) -> None:
    cluster.put(claim("data") | {"spec": {"accessModes": ["ReadWriteOnce"]}})


JUDGE = {"url": "http://judge.tools/v1", "model": "m", "rubric": "right", "secretRef": {"name": "judge-key"}}
JUDGE_SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "judge-key"}, "data": {"API_KEY": "a2V5"}}


async def secret_without_label(cluster: Cluster, obj: Object) -> None:
    cluster.put(JUDGE_SECRET)


async def secret_without_key(cluster: Cluster, obj: Object) -> None:
    cluster.put(JUDGE_SECRET | {"data": {"KEY": "a2V5"}})


async def foreign_version(cluster: Cluster, obj: Object) -> None:
    cluster.put(version("guide-v1"))


async def nothing(cluster: Cluster, obj: Object) -> None:
    return


async def prepare_runs(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.PREPARE)
    cluster.play_pods(Stage.PREPARE)


async def prepare_is_tried_again(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.PREPARE)
    cluster.fail_pod(Stage.PREPARE, ExitCode.INTERNAL, failed_result(ExitCode.INTERNAL, "the disk was busy"))


async def wrong_data(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.PREPARE)
    message = failed_result(ExitCode.INVALID_DATA, "train.jsonl line 7: not JSON")
    cluster.fail_pod(Stage.PREPARE, ExitCode.INVALID_DATA, message)
    cluster.end_job(Stage.PREPARE, "Failed")


async def no_node_for_training(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.TRAIN)
    cluster.play_pods(Stage.TRAIN, phase="Pending", conditions=unschedulable())


async def no_image(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.TRAIN)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    cluster.play_pods(Stage.TRAIN, phase="Pending", state=waiting)


async def one_of_two_started(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.TRAIN)
    cluster.play_pods(Stage.TRAIN, phase="Pending")
    cluster.play_pods(Stage.TRAIN, index=0)


async def containers_have_ended(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.TRAIN)
    ended = {"terminated": {"exitCode": 0, "finishedAt": TIME}}
    cluster.play_pods(Stage.TRAIN, phase="Running", state=ended)


async def training(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.TRAIN)
    cluster.play_pods(Stage.TRAIN)


async def losing(cluster: Cluster, obj: Object) -> None:
    await training(cluster, obj)
    cluster.fail_pod(Stage.TRAIN, 137, index=1)


async def restarting(cluster: Cluster, obj: Object) -> None:
    await losing(cluster, obj)
    cluster.end_job(Stage.TRAIN, "Failed")


async def lost_too_often(cluster: Cluster, obj: Object) -> None:
    await restarting(cluster, obj)
    await settle(cluster, obj)
    cluster.fail_pod(Stage.TRAIN, 137, attempt=2, index=1)
    cluster.end_job(Stage.TRAIN, "Failed", attempt=2)


async def out_of_memory(cluster: Cluster, obj: Object) -> None:
    await training(cluster, obj)
    cluster.fail_pod(Stage.TRAIN, 137, index=1, reason="OOMKilled")
    cluster.end_job(Stage.TRAIN, "Failed")


async def suspending(cluster: Cluster, obj: Object) -> None:
    await training(cluster, obj)
    obj["spec"]["suspend"] = True


async def suspended(cluster: Cluster, obj: Object) -> None:
    await suspending(cluster, obj)
    await settle(cluster, obj)
    cluster.drop_pods(Stage.TRAIN)


async def resumed(cluster: Cluster, obj: Object) -> None:
    await suspended(cluster, obj)
    await settle(cluster, obj)
    obj["spec"]["suspend"] = False
    await settle(cluster, obj)
    cluster.play_pods(Stage.TRAIN)


async def evaluating(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.EVALUATE)
    cluster.play_pods(Stage.EVALUATE)


async def evaluated(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.EVALUATE)
    cluster.succeed(Stage.EVALUATE)


async def exported(cluster: Cluster, obj: Object) -> None:
    await advance(cluster, obj, Stage.EXPORT)
    cluster.succeed(Stage.EXPORT)


async def exported_and_taken(cluster: Cluster, obj: Object) -> None:
    await exported(cluster, obj)
    cluster.put(version("guide-v1"))


CASES = [
    Case(
        "a claim does not exist",
        no_claim,
        "Pending",
        {"Accepted": ("False", "ClaimNotFound")} | reconciling("ClaimNotFound"),
        KStatus.IN_PROGRESS,
        "create it, and the job goes on by itself",
    ),
    Case(
        "two nodes on a claim for one",
        claim_of_one_node,
        "Pending",
        {"Accepted": ("False", "ClaimNotShared"), "Stalled": ("True", "ClaimNotShared")},
        KStatus.FAILED,
        "is only ReadWriteOnce: use a claim that is ReadWriteMany, or one node",
    ),
    Case(
        "the Secret of a gated model does not exist",
        nothing,
        "Pending",
        {"Accepted": ("False", "SecretNotFound")} | reconciling("SecretNotFound"),
        KStatus.IN_PROGRESS,
        "with the key HF_TOKEN",
        {"baseModel": {"uri": "hf://meta-llama/Llama-3.1-8B", "secretRef": {"name": "hub"}}},
    ),
    Case(
        "nobody allowed a judge to have the Secret",
        secret_without_label,
        "Pending",
        {"Accepted": ("False", "SecretNotAllowed")} | reconciling("SecretNotAllowed"),
        KStatus.IN_PROGRESS,
        "lacks the label tunewright.io/judge=true, by which its owner lets spec.evaluation.judge.secretRef have it",
        {"evaluation": {"judge": JUDGE}},
    ),
    Case(
        "the judge's Secret has another key",
        secret_without_key,
        "Pending",
        {"Accepted": ("False", "SecretKeyNotFound")} | reconciling("SecretKeyNotFound"),
        KStatus.IN_PROGRESS,
        "the Secret judge-key has no key API_KEY",
        {"evaluation": {"judge": JUDGE}},
    ),
    Case(
        "the version exists",
        foreign_version,
        "Pending",
        {"Accepted": ("False", "VersionExists"), "Stalled": ("True", "VersionExists")},
        KStatus.FAILED,
        "versions never change",
    ),
    Case(
        "suspended from the start",
        nothing,
        "Suspended",
        ACCEPTED | {"Suspended": ("True", "Suspended")},
        KStatus.CURRENT,
        "set spec.suspend to false",
        {"suspend": True},
    ),
    Case(
        "just created",
        nothing,
        "Preparing",
        ACCEPTED | reconciling("Preparing"),
        KStatus.IN_PROGRESS,
        "0 of 1 pod started",
    ),
    Case(
        "preparing",
        prepare_runs,
        "Preparing",
        ACCEPTED | reconciling("Preparing"),
        KStatus.IN_PROGRESS,
        "checking the dataset",
    ),
    Case(
        "preparing is tried again",
        prepare_is_tried_again,
        "Preparing",
        ACCEPTED | reconciling("Preparing"),
        KStatus.IN_PROGRESS,
        "a try before failed: the disk was busy (pod guide-prepare-0, node node-0, rank 0, exit code 70)",
    ),
    Case(
        "wrong data",
        wrong_data,
        "Failed",
        ACCEPTED | failing("InvalidData") | {"DatasetReady": ("False", "InvalidData")},
        KStatus.FAILED,
        "line 7",
    ),
    Case(
        "no node for training",
        no_node_for_training,
        "Queued",
        PREPARED | reconciling("Queued"),
        KStatus.IN_PROGRESS,
        "2 Insufficient nvidia.com/gpu",
    ),
    Case(
        "no image",
        no_image,
        "Training",
        PREPARED | reconciling("ImageNotPulled"),
        KStatus.IN_PROGRESS,
        "cannot be pulled",
    ),
    Case(
        "half of the gang has started",
        one_of_two_started,
        "Queued",
        PREPARED | reconciling("Queued"),
        KStatus.IN_PROGRESS,
        "1 of 2 pods started",
    ),
    Case("training", training, "Training", PREPARED, KStatus.CURRENT, "training"),
    Case(
        "the containers have ended and the kubelet has not said so of the pods",
        containers_have_ended,
        "Training",
        PREPARED,
        KStatus.CURRENT,
        "training",
    ),
    Case(
        "a pod is lost",
        losing,
        "Queued",
        PREPARED | reconciling("Restarting"),
        KStatus.IN_PROGRESS,
        "pod guide-train-1-1, node node-1, rank 1, exit code 137",
    ),
    Case(
        "the next attempt",
        restarting,
        "Queued",
        PREPARED | reconciling("Queued"),
        KStatus.IN_PROGRESS,
        "of attempt 2 started",
    ),
    Case(
        "lost too often",
        lost_too_often,
        "Failed",
        PREPARED | failing("RestartsExhausted") | {"Trained": ("False", "RestartsExhausted")},
        KStatus.FAILED,
        "lost 2 times",
        {"restartPolicy": {"maxRestarts": 1}},
    ),
    Case(
        "out of memory",
        out_of_memory,
        "Failed",
        PREPARED | failing("OutOfMemory") | {"Trained": ("False", "OutOfMemory")},
        KStatus.FAILED,
        "raise resourcesPerNode.memory",
    ),
    Case(
        "suspending",
        suspending,
        "Suspended",
        PREPARED | reconciling("Suspending"),
        KStatus.IN_PROGRESS,
        "saving a checkpoint",
    ),
    Case(
        "suspended",
        suspended,
        "Suspended",
        PREPARED | {"Suspended": ("True", "Suspended")},
        KStatus.CURRENT,
        "no pod runs",
    ),
    Case(
        "resumed",
        resumed,
        "Training",
        PREPARED | {"Suspended": ("False", "Resumed")},
        KStatus.CURRENT,
        "training",
    ),
    Case("evaluating", evaluating, "Evaluating", TRAINED, KStatus.CURRENT, "comparing"),
    Case(
        "a gate is missed",
        evaluated,
        "Failed",
        EVALUATED | failing("GateFailed"),
        KStatus.FAILED,
        "Loss is 1.25 (base model 4.5), the gate asks for <= 1",
        {"evaluation": {"gates": [{"metric": "Loss", "max": 1.0}]}},
    ),
    Case("exporting", evaluated, "Exporting", EVALUATED, KStatus.CURRENT, "export: 0 of 1 pod started"),
    Case(
        "complete",
        exported,
        "Complete",
        EVALUATED | {"Exported": ("True", "Succeeded"), "Complete": ("True", "Registered")},
        KStatus.CURRENT,
        "registered as ModelVersion guide-v1",
    ),
    Case(
        "somebody took the version meanwhile",
        exported_and_taken,
        "Failed",
        EVALUATED | {"Exported": ("True", "Succeeded")} | failing("VersionExists"),
        KStatus.FAILED,
        "versions never change",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_status_contract(case: Case) -> None:
    cluster, obj = Cluster(), job(**(case.changes or {}))
    await case.arrange(cluster, obj)
    await settle(cluster, obj)
    assert conditions(obj) == case.want
    assert kstatus(obj) is case.verdict
    assert obj["status"]["stage"] == case.stage
    assert case.says in obj["status"]["message"]
    assert obj["status"]["observedGeneration"] == 1
    FineTuneJobStatus.model_validate(obj["status"])


def test_an_object_that_nobody_has_seen_is_in_progress() -> None:
    assert kstatus(job()) is KStatus.IN_PROGRESS


async def test_after_the_deadline_the_job_fails_and_what_runs_is_stopped() -> None:
    cluster, obj = Cluster(), job(activeDeadlineSeconds=60)
    await training(cluster, obj)
    result = await turn(cluster, obj, NOW + timedelta(seconds=59))
    assert result.requeue_after == pytest.approx(1)
    await settle(cluster, obj, NOW + timedelta(seconds=60))
    assert conditions(obj)["Failed"] == ("True", "DeadlineExceeded")
    assert cluster.job(Stage.TRAIN) is None
    assert cluster.job(Stage.PREPARE), "what has ended stays until its time to live is over"


async def test_the_deadline_rests_while_suspended_and_counts_anew_afterwards() -> None:
    cluster, obj = Cluster(), job(activeDeadlineSeconds=60)
    await suspended(cluster, obj)
    result = await settle(cluster, obj, NOW + timedelta(seconds=50))
    assert result.requeue_after is None
    await settle(cluster, obj, NOW + timedelta(hours=1))
    assert conditions(obj) == PREPARED | {"Suspended": ("True", "Suspended")}
    obj["spec"]["suspend"] = False
    result = await settle(cluster, obj, NOW + timedelta(hours=1))
    assert result.requeue_after == pytest.approx(60)
    assert "Failed" not in conditions(obj)
    await settle(cluster, obj, NOW + timedelta(hours=1, seconds=60))
    assert conditions(obj)["Failed"] == ("True", "DeadlineExceeded")


async def test_a_registration_that_is_refused_after_the_deadline_is_tried_again() -> None:
    cluster, obj = Cluster(), job(activeDeadlineSeconds=60)
    await exported(cluster, obj)
    cluster.refuse["ModelVersion"] = Forbidden("exceeded quota: versions", 403)
    late = NOW + timedelta(seconds=90)
    result = await settle(cluster, obj, late)
    assert "exceeded quota" in obj["status"]["message"]
    assert result.requeue_after == CONFIG.recheck_interval
    cluster.refuse.clear()
    await settle(cluster, obj, late)
    assert conditions(obj)["Complete"] == ("True", "Registered")


async def test_the_time_to_live_ends_and_everything_goes() -> None:
    cluster, obj = Cluster(), job(ttlSecondsAfterFinished=60)
    await exported(cluster, obj)
    await settle(cluster, obj)
    result = await turn(cluster, obj, NOW + timedelta(seconds=20))
    assert result.requeue_after == pytest.approx(40)
    await settle(cluster, obj, NOW + timedelta(seconds=60))
    kinds = {kind for kind, _ in cluster.objects}
    assert kinds == {"PersistentVolumeClaim", "ModelVersion", "Pod"}, "pods go with their Jobs"
    assert conditions(obj)["Complete"] == ("True", "Registered")


async def test_a_finished_job_acknowledges_a_change_and_does_nothing() -> None:
    cluster, obj = Cluster(), job()
    await exported(cluster, obj)
    await settle(cluster, obj)
    writes = len(cluster.writes)
    obj["metadata"]["generation"] = 2
    obj["spec"]["suspend"] = True
    await settle(cluster, obj)
    assert len(cluster.writes) == writes
    assert kstatus(obj) is KStatus.CURRENT


async def test_a_result_that_was_lost_with_its_pod_is_made_again() -> None:
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    cluster.succeed(Stage.TRAIN)
    cluster.drop_pods(Stage.TRAIN)
    waiting = await settle(cluster, obj)
    assert waiting.requeue_after, "the message may still be on its way"
    await settle(cluster, obj, NOW + timedelta(seconds=30))
    assert ("delete", "Job", "guide-train-1") in cluster.writes
    assert cluster.job(Stage.TRAIN), "created again; it goes on from its last checkpoint"


async def test_a_result_that_is_lost_again_and_again_fails_the_job() -> None:
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    later = NOW + timedelta(seconds=30)
    for number in range(MAX_REPEATS):
        cluster.succeed(Stage.TRAIN)
        cluster.objects["Job", "guide-train-1"]["metadata"]["uid"] = f"run-{number}"
        for pod in cluster.of("Pod"):
            del cluster.objects["Pod", pod["metadata"]["name"]]
        await turn(cluster, obj, later)
        assert conditions(obj)["Reconciling"] == ("True", "ResultLost")
        assert "runs again" in obj["status"]["message"]
        await settle(cluster, obj, later)
        assert "Failed" not in conditions(obj)
    cluster.succeed(Stage.TRAIN)
    cluster.drop_pods(Stage.TRAIN)
    await settle(cluster, obj, later)
    assert conditions(obj)["Failed"] == ("True", "ResultLost")


@pytest.mark.parametrize("message", ["", "Segmentation fault", RESULTS[Stage.PREPARE].to_message()])
async def test_a_pod_without_a_readable_result_fails_the_job_and_names_the_image(message: str) -> None:
    cluster, obj = Cluster(), job()
    await training(cluster, obj)
    ended = {"terminated": {"exitCode": 0, "message": message, "finishedAt": TIME}}
    cluster.play_pods(Stage.TRAIN, phase="Succeeded", state=ended)
    cluster.end_job(Stage.TRAIN, "Complete")
    await settle(cluster, obj, NOW + timedelta(seconds=30))
    assert conditions(obj) == PREPARED | failing("ResultUnreadable") | {"Trained": ("False", "ResultUnreadable")}
    assert "pod guide-train-1-0" in obj["status"]["message"]
    assert "the image registry.example/trainer:1" in obj["status"]["message"]
    assert not [write for write in cluster.writes if write[0] == "delete"], "nothing is trained again"


async def test_a_pod_that_vanished_is_a_loss_without_a_name() -> None:
    cluster, obj = Cluster(), job()
    await training(cluster, obj)
    cluster.drop_pods(Stage.TRAIN)
    cluster.end_job(Stage.TRAIN, "Failed")
    await settle(cluster, obj, NOW + timedelta(seconds=30))
    (restart,) = obj["status"]["restarts"]
    assert restart == {"attempt": 1, "time": "2026-01-02T03:04:05Z", "cause": "PodLost"}
    assert cluster.job(Stage.TRAIN, 2)


async def test_what_was_seen_of_a_lost_pod_is_kept_when_it_is_gone() -> None:
    cluster, obj = Cluster(), job()
    await losing(cluster, obj)
    await settle(cluster, obj)
    cluster.drop_pods(Stage.TRAIN)
    cluster.end_job(Stage.TRAIN, "Failed")
    await settle(cluster, obj)
    (restart,) = obj["status"]["restarts"]
    assert (restart["rank"], restart["exitCode"], restart["cause"]) == (1, 137, "Killed")


async def test_an_error_of_the_configuration_is_not_retried_even_when_its_pod_is_gone() -> None:
    cluster, obj = Cluster(), job()
    await training(cluster, obj)
    cluster.fail_pod(Stage.TRAIN, ExitCode.DIVERGED, failed_result(ExitCode.DIVERGED, "the loss is not a number"))
    await settle(cluster, obj)
    cluster.drop_pods(Stage.TRAIN)
    cluster.end_job(Stage.TRAIN, "Failed")
    await settle(cluster, obj)
    assert conditions(obj)["Failed"] == ("True", "Diverged")
    assert cluster.job(Stage.TRAIN, 2) is None


async def test_a_job_whose_pods_are_refused_says_where_to_look() -> None:
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    result = await settle(cluster, obj, NOW + timedelta(seconds=20))
    assert conditions(obj)["Reconciling"] == ("True", "Queued")
    assert result.requeue_after == pytest.approx(10)
    await settle(cluster, obj, NOW + timedelta(seconds=30))
    assert conditions(obj) == PREPARED | reconciling("PodsNotCreated")
    assert obj["status"]["message"] == (
        "train: 0 of 2 pods created. A quota, a LimitRange or Pod Security may refuse them: "
        "`kubectl -n team describe job guide-train-1` says why"
    )
    cluster.play_pods(Stage.TRAIN, index=0)
    await settle(cluster, obj, NOW + timedelta(seconds=40))
    assert "train: 1 of 2 pods created" in obj["status"]["message"]
    cluster.play_pods(Stage.TRAIN)
    await settle(cluster, obj, NOW + timedelta(seconds=50))
    assert conditions(obj) == PREPARED


def dying(since: str) -> Object:
    """What the metadata of a pod says that somebody deleted."""
    return {"creationTimestamp": since, "deletionTimestamp": TIME}


async def test_pods_that_a_suspension_ends_are_no_loss_even_when_the_job_has_gone_on() -> None:
    cluster, obj = Cluster(), job()
    await training(cluster, obj)
    train = cluster.objects["Job", "guide-train-1"]
    train["status"] = {"startTime": "2026-01-02T03:00:00Z"}
    obj["spec"]["suspend"] = True
    cluster.play_pods(Stage.TRAIN, metadata=dying("2026-01-02T03:00:00Z"))
    await turn(cluster, obj)
    assert obj["status"]["restarts"] == [], "before the Job is told"
    await settle(cluster, obj)
    train["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    obj["spec"]["suspend"] = False
    await settle(cluster, obj)
    assert obj["status"]["restarts"] == [], "before the Job controller has seen that it goes on"
    train["status"] = {"startTime": TIME, "conditions": [{"type": "Suspended", "status": "False"}]}
    await settle(cluster, obj)
    assert obj["status"]["restarts"] == [], "while the old pods save their checkpoint"
    assert conditions(obj)["Reconciling"] == ("True", "Queued")
    cluster.play_pods(Stage.TRAIN, metadata=dying(TIME))
    await settle(cluster, obj)
    (restart,) = obj["status"]["restarts"]
    assert restart["cause"] == "PodDeleted", "pods of the new start count"


async def test_no_gang_starts_beside_one_that_is_ending() -> None:
    cluster, obj = Cluster(), job()
    await training(cluster, obj)
    for index in (0, 1):
        cluster.play_pods(Stage.TRAIN, index=index, metadata=dying(TIME))
    del cluster.objects["Job", "guide-train-1"]
    await settle(cluster, obj)
    (restart,) = obj["status"]["restarts"]
    assert restart == {
        "attempt": 1,
        "time": TIME,
        "pod": "guide-train-1-0",
        "node": "node-0",
        "rank": 0,
        "cause": "JobDeleted",
    }
    assert conditions(obj) == PREPARED | reconciling("Restarting")
    assert "waiting for 2 pods of a Job that was deleted to end (guide-train-1-0)" in obj["status"]["message"]
    assert len(cluster.of("Job")) == 1, "only prepare"
    for pod in cluster.of("Pod"):
        del cluster.objects["Pod", pod["metadata"]["name"]]
    await settle(cluster, obj)
    assert cluster.job(Stage.TRAIN) is None
    assert cluster.job(Stage.TRAIN, 2)


async def test_pods_of_a_deleted_job_of_the_same_name_are_waited_out_and_are_no_loss() -> None:
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    for index in (0, 1):
        cluster.play_pods(Stage.TRAIN, index=index, metadata=dying(TIME))
    obj = job()
    obj["metadata"]["uid"] = "uid-of-the-next"
    cluster.objects = {key: one for key, one in cluster.objects.items() if key[0] in {"Pod", "PersistentVolumeClaim"}}
    await settle(cluster, obj)
    assert "waiting for 2 pods" in obj["status"]["message"]
    assert cluster.of("Job") == []
    for pod in cluster.of("Pod"):
        del cluster.objects["Pod", pod["metadata"]["name"]]
    await settle(cluster, obj)
    assert cluster.job(Stage.PREPARE)
    assert obj["status"]["restarts"] == []


async def test_a_job_that_is_created_anew_does_not_live_on_the_jobs_of_the_deleted_one() -> None:
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    obj = job()
    obj["metadata"]["uid"] = "uid-of-the-next"
    left = {key: one for key, one in cluster.objects.items() if key[1] == "guide-prepare" or key[0].endswith("Claim")}
    cluster.objects = dict(left)
    result = await settle(cluster, obj)
    assert conditions(obj) == ACCEPTED | reconciling("NameTaken")
    assert "Job guide-prepare is left from a deleted FineTuneJob of the same name" in obj["status"]["message"]
    assert result.requeue_after == CONFIG.recheck_interval
    assert cluster.job(Stage.PREPARE) == left["Job", "guide-prepare"]
    del cluster.objects["Job", "guide-prepare"]
    await settle(cluster, obj)
    prepare = cluster.job(Stage.PREPARE)
    assert prepare
    assert prepare["metadata"]["ownerReferences"][0]["uid"] == "uid-of-the-next"
    assert "DatasetReady" not in conditions(obj)


async def test_progress_is_shown_and_a_failing_look_keeps_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Progress | None] = [
        Progress(step=12, total_steps=50, epoch=0.5, eta_seconds=65, tokens_per_second=850, loss=1.234),
        None,
    ]

    async def answer(host: str, port: int) -> Progress | None:
        assert (host, port) == ("10.0.0.7", 9090)
        return answers.pop(0)

    monkeypatch.setattr(reconciler, "fetch_progress", answer)
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    cluster.play_pods(Stage.TRAIN, podIP="10.0.0.7")
    result = await turn(cluster, obj)
    assert result.requeue_after == 5
    assert obj["status"]["message"] == "12/50 · loss 1.234 · 850 tok/s · 1m05s left"
    await turn(cluster, obj)
    assert obj["status"]["progress"]["percent"] == 24


def test_progress_shows_what_the_trainer_knows() -> None:
    report = Progress(
        step=12,
        total_steps=50,
        epoch=0.512,
        eta_seconds=65.2,
        tokens_per_second=850.04,
        loss=1.23456,
        eval_loss=1.31049,
        gpu_memory_percent=71.26,
        learning_rate=1e-4,
    )
    progress = compute_progress(report)
    assert progress.to_dict() == {
        "percent": 24,
        "step": 12,
        "totalSteps": 50,
        "epoch": 0.51,
        "etaSeconds": 65,
        "tokensPerSecond": 850.0,
        "loss": 1.2346,
        "evalLoss": 1.3105,
        "gpuMemoryPercent": 71.3,
        "learningRate": 1e-4,
        "summary": "12/50 · loss 1.235 · eval 1.310 · 850 tok/s · GPU 71% · 1m05s left",
    }
    done = finish_progress(progress, TrainResult(steps=50, loss=1.1, seconds=60))
    assert done.summary == "50/50 · loss 1.100 · eval 1.310 · 850 tok/s"


async def test_a_spec_that_cannot_be_read_is_refused_with_the_field() -> None:
    cluster, obj = Cluster(), job(numNodes="many")
    await settle(cluster, obj)
    assert conditions(obj)["Accepted"] == ("False", "InvalidSpec")
    assert "spec.numNodes" in obj["status"]["message"]


async def test_a_finished_job_stays_finished_when_its_spec_can_no_longer_be_read() -> None:
    cluster, obj = Cluster(), job(ttlSecondsAfterFinished=60)
    await exported(cluster, obj)
    await settle(cluster, obj)
    before = conditions(obj)
    obj["spec"]["method"] = {"fromALaterRelease": {}}
    obj["metadata"]["generation"] = 2
    await settle(cluster, obj)
    assert conditions(obj) == before
    assert kstatus(obj) is KStatus.CURRENT
    await settle(cluster, obj, NOW + timedelta(seconds=60))
    assert cluster.of("Job") == [], "its time to live is still known"


async def test_a_running_job_keeps_its_milestones_when_its_spec_can_no_longer_be_read() -> None:
    cluster, obj = Cluster(), job()
    await evaluating(cluster, obj)
    obj["spec"]["method"] = {"fromALaterRelease": {}}
    await settle(cluster, obj)
    assert conditions(obj) == {
        "Accepted": ("False", "InvalidSpec"),
        "Stalled": ("True", "InvalidSpec"),
        "DatasetReady": ("True", "Succeeded"),
        "Trained": ("True", "Succeeded"),
    }


async def test_what_became_of_every_row_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"records": 310, "train": 260, "validation": 30, "truncated": 2, "divided": 70, "pieces": 428}
    found |= {"duplicates": 5, "dropped": 12, "quarantined": 8}
    prepared = StageResult.model_validate({"outcome": "Succeeded", "prepare": {**found, "digest": DIGEST}})
    monkeypatch.setitem(RESULTS, Stage.PREPARE, prepared)
    cluster, obj = Cluster(), job()
    await advance(cluster, obj, Stage.TRAIN)
    assert obj["status"]["dataset"] == {**found, "notes": [], "digest": DIGEST}
    (ready,) = (each for each in obj["status"]["conditions"] if each["type"] == "DatasetReady")
    assert ready["message"] == (
        "310 records, 2 of them cut to sequenceLength, 70 divided into 428 pieces: 260 to train on, 30 held out, "
        "12 dropped, 8 quarantined"
    )
