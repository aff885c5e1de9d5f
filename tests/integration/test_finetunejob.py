"""FineTuneJob on a real apiserver, Job controller and scheduler: the whole way, and every way it can go wrong."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.wait import wait_for
from tests.integration.conftest import OPERATOR_USER, Namespace, Operator, conditions, create_claim
from tests.integration.kubelet import DIGEST, Kubelet, Play, failure, serving_progress
from tests.kstatus import KStatus, kstatus
from tunewright_api.names import ExitCode

Object = dict[str, Any]

QUIET_SECONDS = 5
OURS = "/apis/tunewright.io/v1alpha1"
SEEDS = range(5)
KILLS = 2
ALL_CHILDREN = {
    "jobs": ["guide-evaluate", "guide-export", "guide-prepare", "guide-train-1"],
    "services": ["guide-train"],
    "configmaps": ["guide-config"],
    "networkpolicies": ["guide-train"],
    "modelversions": ["guide-v1"],
}


def ended(status: Object) -> bool:
    """Whether the job is over."""
    return bool({"Complete", "Failed"} & conditions(status).keys())


def children_but_verification(namespace: Namespace) -> dict[str, list[str]]:
    """Children of the job; those that the ModelVersion has for its own verification are left out."""
    children = {kind: [n for n in names if "verify" not in n] for kind, names in namespace.children().items()}
    children.pop("pods")
    return children


def assert_quiet(namespace: Namespace, seconds: float = QUIET_SECONDS) -> None:
    """Once the version is verified, too, the operator writes nothing for a while."""
    audit = namespace.plane.audit
    wait_for("every version settled", lambda: all(map(_settled, namespace.list(f"{OURS}/modelversions"))), 60)
    time.sleep(2)  # the verification's children go
    mark = audit.mark()
    time.sleep(seconds)
    assert [w for w in audit.writes(user=OPERATOR_USER, since=mark) if w.namespace == namespace.name] == []


def _settled(version: Object) -> bool:
    return kstatus(version) is KStatus.CURRENT


def test_a_job_becomes_a_registered_version(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(1.5) if stage == "train" else None
    gates = [{"metric": "Loss", "max": 1.5}, {"metric": "RougeL", "min": 0.25}]
    created = namespace.create_job(evaluation={"gates": gates})
    job = namespace.wait_job("the job ended", ended)

    status = job["status"]
    assert conditions(status) == {
        "Accepted": ("True", "Accepted"),
        "DatasetReady": ("True", "Succeeded"),
        "Trained": ("True", "Succeeded"),
        "Evaluated": ("True", "Succeeded"),
        "Exported": ("True", "Succeeded"),
        "Complete": ("True", "Registered"),
    }
    assert kstatus(job) is KStatus.CURRENT
    assert status["stage"] == "Complete"
    assert status["modelVersionRef"] == {"name": "guide-v1"}
    assert status["dataset"]["records"] == 300
    assert status["progress"]["summary"].startswith("50/50 · loss 1.250")
    assert status["lastCheckpoint"] == {"step": 50}
    assert [time["stage"] for time in status["stages"]] == ["prepare", "train", "evaluate", "export"]
    assert all(time["finished"] >= time["started"] for time in status["stages"])
    assert status["evaluation"][0] == {"metric": "Loss", "base": 4.5, "tuned": 1.25, "gate": "<= 1.5", "passed": True}
    assert job["spec"] == created["spec"], "the spec belongs to the user"
    assert children_but_verification(namespace) == ALL_CHILDREN

    version = namespace.plane.api.get(namespace.path("modelversions", "guide-v1"))
    assert version["spec"]["artifact"]["digest"] == DIGEST
    assert version["spec"]["lineage"]["jobRef"]["uid"] == job["metadata"]["uid"]
    assert "ownerReferences" not in version["metadata"], "a version outlives its job"
    assert_quiet(namespace)


def test_progress_of_a_run_is_visible(namespace: Namespace, operator: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None
    report: Object = {
        "step": 12,
        "totalSteps": 50,
        "epoch": 0.5,
        "etaSeconds": 65,
        "tokensPerSecond": 850,
        "loss": 1.234,
        "checkpointStep": 10,
    }
    with serving_progress(report) as port:
        operator.settings["TUNEWRIGHT_TRAINER_PORT"] = str(port)
        operator.start()
        namespace.create_job()
        job = namespace.wait_job(
            "progress", lambda status: status.get("progress") and status.get("stage") == "Training"
        )
        assert job["status"]["progress"]["summary"] == "12/50 · loss 1.234 · 850 tok/s · 1m05s left"
        assert job["status"]["lastCheckpoint"] == {"step": 10}
        assert kstatus(job) is KStatus.CURRENT, "a running job is current, like a batch Job"
        report["step"] = 25
        namespace.wait_job("more progress", lambda status: status["progress"]["percent"] == 50)


def test_a_run_that_moves_fast_costs_one_write_an_interval(
    namespace: Namespace, operator: Operator, kubelet: Kubelet
) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None

    class Fast(dict[str, Any]):
        """A report that is one step further each time it is read."""

        def items(self) -> Any:
            self["step"] += 1
            return super().items()

    with serving_progress(Fast(step=0, totalSteps=10**6, epoch=0.5)) as port:
        operator.settings |= {
            "TUNEWRIGHT_TRAINER_PORT": str(port),
            "TUNEWRIGHT_PROGRESS_INTERVAL_SECONDS": "1",
        }
        operator.start()
        namespace.create_job()
        namespace.wait_job("training", lambda status: status.get("stage") == "Training")
        mark = namespace.plane.audit.mark()
        time.sleep(4)
        writes = [w for w in namespace.plane.audit.writes(user=OPERATOR_USER, since=mark) if w.subresource == "status"]
        assert 2 <= len(writes) <= 5


def test_a_lost_pod_ends_the_attempt_and_the_next_one_succeeds(
    namespace: Namespace, running: Operator, kubelet: Kubelet
) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: (
        Play(None) if (stage, attempt) == ("train", 1) else None
    )
    namespace.create_job()
    namespace.wait_job("training", lambda status: status.get("stage") == "Training")
    (victim,) = [
        pod
        for pod in namespace.list("/api/v1/pods")
        if pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index") == "1"
    ]
    kubelet.kill(namespace.name, victim["metadata"]["name"])
    status = namespace.wait_job("the job ended", ended)["status"]
    (restart,) = status["restarts"]
    assert conditions(status)["Complete"] == ("True", "Registered")
    assert (restart["attempt"], restart["rank"], restart["exitCode"], restart["cause"]) == (1, 1, 137, "Killed")
    assert restart["node"] == victim["spec"]["nodeName"]
    assert [n for n in namespace.children()["jobs"] if "train" in n] == ["guide-train-1", "guide-train-2"]


def test_a_deleted_pod_ends_the_attempt_and_is_named(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: (
        Play(None) if (stage, attempt) == ("train", 1) else None
    )
    namespace.create_job()
    namespace.wait_job("training", lambda status: status.get("stage") == "Training")
    victim = next(p for p in namespace.children()["pods"] if p.startswith("guide-train-1-1"))
    namespace.plane.api.delete(f"/api/v1/namespaces/{namespace.name}/pods/{victim}")
    status = namespace.wait_job("the job ended", ended)["status"]
    (restart,) = status["restarts"]
    assert conditions(status)["Complete"] == ("True", "Registered")
    assert restart["attempt"] == 1
    assert restart["cause"] in {"PodDeleted", "PodLost"}


def test_wrong_data_fails_the_job_with_the_line(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    message = "/mnt/claims/data/train.jsonl line 7: not JSON (Expecting ',' delimiter): correct the line"
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: failure(ExitCode.INVALID_DATA, message)
    namespace.create_job()
    job = namespace.wait_job("the job ended", ended)
    assert conditions(job["status"])["Failed"] == ("True", "InvalidData")
    assert conditions(job["status"])["Stalled"] == ("True", "InvalidData")
    assert "line 7" in job["status"]["message"]
    assert "exit code 65" in job["status"]["message"]
    assert kstatus(job) is KStatus.FAILED
    assert namespace.children()["jobs"] == ["guide-prepare"], "no node is asked for"
    assert_quiet(namespace, 3)


def test_a_claim_that_is_created_later_lets_the_job_go_on(namespace: Namespace, running: Operator) -> None:
    namespace.create_job(dataset={"uri": "pvc://later/train.jsonl", "format": "Alpaca"})
    job = namespace.wait_job("the refusal", conditions)
    assert conditions(job["status"]) == {
        "Accepted": ("False", "ClaimNotFound"),
        "Reconciling": ("True", "ClaimNotFound"),
    }
    assert kstatus(job) is KStatus.IN_PROGRESS
    assert "spec.dataset.uri names the PersistentVolumeClaim later" in job["status"]["message"]
    create_claim(namespace, "later")
    status = namespace.wait_job("the job ended", ended)["status"]
    assert conditions(status)["Complete"] == ("True", "Registered")


def test_suspend_releases_the_nodes_and_resume_goes_on(
    namespace: Namespace, running: Operator, kubelet: Kubelet
) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None
    namespace.create_job()
    namespace.wait_job("training", lambda status: status.get("stage") == "Training")
    path = namespace.path("finetunejobs", "guide")
    namespace.plane.api.merge(path, {"spec": {"suspend": True}})
    job = namespace.wait_job("suspended", lambda status: conditions(status).get("Suspended") == ("True", "Suspended"))
    assert kstatus(job) is KStatus.CURRENT
    assert not [pod for pod in namespace.children()["pods"] if "train" in pod]

    kubelet.scripts.pop(namespace.name)
    namespace.plane.api.merge(path, {"spec": {"suspend": False}})
    status = namespace.wait_job("the job ended", ended)["status"]
    assert conditions(status)["Complete"] == ("True", "Registered")
    assert status["restarts"] == [], "a suspension is no loss"


def test_a_deadline_fails_the_job_and_stops_its_pods(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None)
    namespace.create_job(activeDeadlineSeconds=3)
    job = namespace.wait_job("the job ended", ended)
    assert conditions(job["status"])["Failed"] == ("True", "DeadlineExceeded")
    wait_for("no pod left", lambda: not namespace.children()["pods"], 10)
    assert namespace.children()["jobs"] == []


def test_the_time_to_live_removes_the_children_and_keeps_the_job(namespace: Namespace, running: Operator) -> None:
    namespace.create_job(ttlSecondsAfterFinished=1)
    namespace.wait_job("the job ended", ended)
    gone = {kind: [] for kind in ALL_CHILDREN} | {"modelversions": ["guide-v1"]}
    wait_for("no child left", lambda: children_but_verification(namespace) == gone, 15)
    assert conditions(namespace.job()["status"])["Complete"] == ("True", "Registered")
    assert_quiet(namespace, 3)


def test_deletion_ends_the_loop_and_leaves_nothing(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None
    namespace.create_job()
    namespace.wait_job("training", lambda status: status.get("stage") == "Training")
    path = namespace.path("finetunejobs", "guide")
    started = time.monotonic()
    namespace.plane.api.delete(path)
    wait_for("the job gone", lambda: not namespace.plane.exists(path), 10)
    assert time.monotonic() - started < 5
    # The garbage collector learns of new kinds every 30 seconds.
    wait_for("nothing left", lambda: not any(namespace.children().values()), 60, hint=lambda: str(namespace.children()))


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_writes_the_operator_reaches_the_same_end(
    namespace: Namespace, operator: Operator, kubelet: Kubelet, seed: int
) -> None:
    """SIGKILL after the nth write of the operator, several times in one run."""
    dice = random.Random(seed)
    moments = sorted(dice.sample(range(1, 22), KILLS))
    print(f"seed {seed}: SIGKILL after the writes {moments}")
    lost = dice.random() < 0.5
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: (
        Play(0.3, 137, "") if lost and (stage, attempt, index) == ("train", 1, 1) else None
    )
    mark = namespace.plane.audit.mark()
    operator.start()
    namespace.create_job()
    for moment in moments:
        writes = _writes_or_end(namespace, mark, moment)
        operator.kill()
        print(f"killed after {writes} writes")
        operator.start(wait=False)

    status = namespace.wait_job("the job ended", ended)["status"]
    assert conditions(status)["Complete"] == ("True", "Registered")
    trainings = ["guide-train-1", "guide-train-2"] if lost else ["guide-train-1"]
    jobs = ["guide-evaluate", "guide-export", "guide-prepare", *trainings]
    assert children_but_verification(namespace) == ALL_CHILDREN | {"jobs": jobs}
    assert len(status["restarts"]) == int(lost)
    assert status["evaluation"][0]["tuned"] == 1.25
    assert_quiet(namespace, 2)


def _writes_or_end(namespace: Namespace, mark: int, count: int) -> int:
    """Wait for so many writes of the operator in this namespace, or the job's end; returns their number."""
    audit, seen, position = namespace.plane.audit, 0, mark

    def written() -> int:
        nonlocal seen, position
        end = audit.mark()
        # The log is read on from where the last look ended: all of it, again and again, would take the whole CPU.
        seen += sum(w.namespace == namespace.name for w in audit.writes(user=OPERATOR_USER, since=position))
        position = end
        return seen if seen >= count or ended(namespace.job().get("status") or {}) else 0

    return wait_for(f"{count} writes", written, 90, interval=0.05)


def test_logs_name_the_object(namespace: Namespace, running: Operator, tmp_path: Path) -> None:
    namespace.create_job()
    namespace.wait_job("the job ended", ended)
    assert '"kind": "FineTuneJob"' in running.tail()
    assert f'"namespace": "{namespace.name}"' in running.tail()
