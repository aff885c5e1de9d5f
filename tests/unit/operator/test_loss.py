"""Which pod of a lost gang is named, and whether there is another attempt."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.training import failed_result
from tunewright_api.evaluation import Gate, MetricName
from tunewright_api.finetunejob import RestartPolicy
from tunewright_api.names import ExitCode, Stage
from tunewright_api.results import MetricPair, StageResult
from tunewright_operator.observe.jobs import JobState, JobView
from tunewright_operator.observe.pods import PodView, observe_pod
from tunewright_operator.policies.failure import describe_failure
from tunewright_operator.policies.gates import gate_failure, judge
from tunewright_operator.policies.loss import Loss, find_loss, vanished
from tunewright_operator.policies.restart import recall, remember, restart_refusal

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pod(index: int, exit_code: int | None = None, *, after: int = 0, **fields: Any) -> PodView:
    """A pod of rank `index` that ended `after` seconds."""
    return PodView(
        name=f"train-{index}",
        index=index,
        phase="Running" if exit_code is None else "Failed",
        node=f"node-{index}",
        running=exit_code is None,
        exit_code=exit_code,
        ended=None if exit_code is None else T0 + timedelta(seconds=after),
        **fields,
    )


def gang(*pods: PodView) -> JobView:
    """A training Job with these pods."""
    return JobView(
        stage=Stage.TRAIN,
        attempt=1,
        name="train",
        state=JobState.FAILED,
        pods=pods,
        suspended=False,
        deleting=False,
        image="trainer",
        created=T0,
        ended=T0,
        message="Job has reached the specified backoff limit",
        raw={},
    )


def result(code: ExitCode, message: str) -> StageResult | None:
    """What a trainer leaves."""
    return StageResult.from_message(failed_result(code, message))


PEER_LOST, PREEMPTED = ExitCode.PEER_LOST.value, ExitCode.PREEMPTED.value
CASES = {
    "one was killed, its peer lost it first by the clock": (
        [pod(0, PEER_LOST, after=0), pod(1, 137, after=1)],
        (1, 137, "Killed", True),
    ),
    "one ran out of memory, the controller stopped its peer in the same second": (
        [pod(0, PREEMPTED), pod(1, 137, ended_by="OOMKilled")],
        (1, 137, "OutOfMemory", False),
    ),
    "a node was drained": (
        [pod(0, PEER_LOST), pod(1, PREEMPTED, after=5, disrupted_by="EvictionByEvictionAPI")],
        (1, PREEMPTED, "EvictionByEvictionAPI", True),
    ),
    "a node was drained, and the trainer could no longer write": (
        [pod(0, PEER_LOST), pod(1, 74, after=5, disrupted_by="EvictionByEvictionAPI")],
        (1, 74, "EvictionByEvictionAPI", True),
    ),
    "the launcher ended for a rank that diverged": (
        [pod(0, 1, result=result(ExitCode.DIVERGED, "the loss is not a number"))],
        (0, 1, "Diverged", False),
    ),
    "somebody deleted a pod that still ends": (
        [pod(0), pod(1, deleted=T0)],
        (1, None, "PodDeleted", True),
    ),
    "somebody deleted a pod, and it has ended": (
        [pod(0), pod(1, PREEMPTED, deleted=T0)],
        (1, PREEMPTED, "PodDeleted", True),
    ),
    "the earliest of two failures of their own": (
        [pod(0, 1, after=3), pod(1, 139, after=2)],
        (1, 139, "ContainerFailed", True),
    ),
    "the loss diverged on every rank": (
        [
            pod(0, ExitCode.DIVERGED.value, result=result(ExitCode.DIVERGED, "the loss is not a number")),
            pod(1, ExitCode.DIVERGED.value, result=result(ExitCode.DIVERGED, "the loss is not a number")),
        ],
        (0, 76, "Diverged", False),
    ),
    "a crash that the trainer could explain": (
        [pod(0, ExitCode.INTERNAL.value, result=result(ExitCode.INTERNAL, "NCCL timed out"))],
        (0, 70, "Internal", True),
    ),
    "an exit code of ours without a message": ([pod(0, 73)], (0, 73, "VolumeFull", False)),
    "the kubelet evicted the pod before its container ended": (
        [replace(pod(0), phase="Failed", running=False, ended_by="Evicted")],
        (0, None, "Evicted", True),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_pod_that_ended_first_by_a_failure_of_its_own_is_named(name: str) -> None:
    pods, want = CASES[name]
    loss = find_loss(gang(*pods))
    assert loss
    assert (loss.rank, loss.exit_code, loss.cause, loss.retriable) == want
    assert loss.node == f"node-{want[0]}"


def test_pods_that_run_or_succeeded_are_no_loss() -> None:
    assert find_loss(gang(pod(0), replace(pod(1, 0), phase="Succeeded"))) is None


def test_an_entry_keeps_what_was_known_and_is_refined_by_what_is_learned() -> None:
    deleted, ended = find_loss(gang(pod(1, deleted=T0))), find_loss(gang(pod(1, PREEMPTED, deleted=T0)))
    assert deleted
    assert ended
    first = remember((), 1, deleted, T0)
    refined = remember(first, 1, ended, T0 + timedelta(seconds=9))
    kept = remember(refined, 1, vanished(gang()), T0 + timedelta(seconds=99))
    assert (first[0].exit_code, refined[0].exit_code) == (None, PREEMPTED)
    assert kept == refined
    assert len(kept) == 1


@pytest.mark.parametrize(("attempt", "reason"), [(1, None), (3, None), (4, "RestartsExhausted")])
def test_restarts_are_bounded(attempt: int, reason: str | None) -> None:
    loss = find_loss(gang(pod(1, 137)))
    assert loss
    refusal = restart_refusal(RestartPolicy(max_restarts=3), attempt, loss)
    assert (refusal.reason if refusal else None) == reason


def test_an_entry_remembers_whether_trying_again_helps() -> None:
    for case, (pods, (_, _, _, retriable)) in CASES.items():
        loss = find_loss(gang(*pods))
        assert loss
        assert recall(remember((), 1, loss, T0)[0]).retriable is retriable, case


def test_a_failure_names_place_cause_and_remedy() -> None:
    loss = find_loss(gang(pod(1, 137, ended_by="OOMKilled")))
    assert loss
    assert describe_failure("train", loss).message == (
        "train failed: the container needed more memory than its limit "
        "(pod train-1, node node-1, rank 1, exit code 137). What to do: raise resourcesPerNode.memory, or lower "
        "hyperparameters.microBatchSize or sequenceLength, then commit a FineTuneJob with a new name"
    )


HELPS = "out of memory on rank 1: 4.0 GiB of 4.0 GiB of the container were in use. What would help most: …"


@pytest.mark.parametrize(
    ("left", "want"),
    [
        pytest.param(
            result(ExitCode.OUT_OF_MEMORY, HELPS), ("OutOfMemory", HELPS), id="the trainer says what would help"
        ),
        pytest.param(
            result(ExitCode.INTERNAL, "rank 1 was ended by SIGKILL"),
            ("OutOfMemory", "the container needed more memory than its limit"),
            id="the trainer does not know why",
        ),
        pytest.param(
            None, ("OutOfMemory", "the container needed more memory than its limit"), id="nobody was left to tell"
        ),
    ],
)
def test_the_kernel_killed_for_memory(left: StageResult | None, want: tuple[str, str]) -> None:
    cause, message = want
    assert find_loss(gang(pod(0), pod(1, 71, ended_by="OOMKilled", result=left))) == Loss(
        cause=cause, message=message, pod="train-1", node="node-1", rank=1, exit_code=71, ended=T0
    )


def test_a_raw_pod_is_read_with_its_message() -> None:
    message = failed_result(ExitCode.INVALID_DATA, "line 7")
    raw = {
        "metadata": {"name": "a", "labels": {"batch.kubernetes.io/job-completion-index": "3"}},
        "spec": {"nodeName": "node-3"},
        "status": {
            "phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
            "containerStatuses": [
                {"state": {"terminated": {"exitCode": 65, "message": message, "finishedAt": "2026-01-02T03:04:05Z"}}}
            ],
        },
    }
    view = observe_pod(raw)
    assert (view.index, view.node, view.exit_code, view.ended) == (3, "node-3", 65, T0)
    assert view.disrupted_by == "PreemptionByScheduler"
    assert view.result
    assert view.result.message == "line 7"


def test_gates_are_judged_with_their_figures() -> None:
    pairs = [
        MetricPair(metric=MetricName.LOSS, base=4.5, tuned=1.25),
        MetricPair(metric=MetricName.ROUGE_L, base=0.1, tuned=0.2),
    ]
    gates = [
        Gate(metric=MetricName.LOSS, max=1.25),
        Gate(metric=MetricName.ROUGE_L, min=0.5),
        Gate(metric=MetricName.EXACT_MATCH, min=0.0),
    ]
    results = judge(pairs, gates)
    assert [r.passed for r in results] == [True, False]
    failure = gate_failure(results, gates)
    assert failure
    assert "RougeL is 0.2 (base model 0.1), the gate asks for >= 0.5" in failure.message
    assert "ExactMatch was not measured (gate >= 0)" in failure.message
    assert gate_failure(results, gates[:1]) is None
