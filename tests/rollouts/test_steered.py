"""Rollouts that people, approvals, aliases and pods decide."""

from __future__ import annotations

from functools import partial

import pytest

from e2e.cluster.rest import ApiError
from tests.rollouts.behaviour import Behaviour, Ending
from tests.rollouts.kubelet import Pod
from tests.rollouts.stage import CANARY, Stage
from tunewright_api.names import ExitCode

pytestmark = pytest.mark.timeout(300)


@pytest.mark.scenario("pods-die", timed=True)
def test_a_candidate_without_a_pod_is_undone_at_once(stage: Stage) -> None:
    load = stage.start("v1")
    dying = stage.behave("v2")
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    dying.ending = Ending(1, "Traceback: the driver is gone")
    begin = stage.clock()
    status = stage.rolled_back("CandidateDown")
    undone = next(weights.time for weights in reversed(stage.weights()) if weights.whole)
    stage.check_promise("pods gone", begin, undone)
    assert status["stable"]["version"] == stage.name("v1")
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 0]
    stage.wait("all answers from v1", lambda: stage.newest(load, 10) == {stage.name("v1")})


@pytest.mark.scenario("never-ready")
def test_a_version_that_never_loads_gets_no_request(stage: Stage) -> None:
    load = stage.start("v1", rollout={**CANARY, "progressDeadline": "4s"})
    stage.behave("v2", loads=False)
    stage.register("v2")
    stage.move("v2")
    stage.rolled_back("ProgressDeadlineExceeded")
    assert stage.decisions() == [("Started", 0, "NewRevision"), ("RolledBack", 0, "ProgressDeadlineExceeded")]
    assert all(weights.whole for weights in stage.weights())
    stage.stop(load)
    assert load.failures() == []
    assert set(load.versions()) == {stage.name("v1")}


@pytest.mark.scenario("wrong-digest")
def test_changed_files_undo_at_once(stage: Stage) -> None:
    load = stage.start("v1")
    words = "model/config.json was changed after export"
    stage.behave("v2", ending=Ending.ours(ExitCode.DIGEST_MISMATCH, words))
    stage.register("v2")
    stage.move("v2")
    status = stage.rolled_back("DigestMismatch")
    assert words in status["message"]
    assert all(weights.whole for weights in stage.weights())
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("crash-loop")
def test_three_crashes_undo(stage: Stage) -> None:
    load = stage.start("v1")
    stage.behave("v2", ending=Ending(139, "Segmentation fault"))
    stage.register("v2")
    stage.move("v2")
    status = stage.rolled_back("ContainerFailed")
    assert "139" in status["message"]
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("alias")
def test_an_alias_that_moves_twice_ends_at_the_last_version(stage: Stage) -> None:
    stage.create_version("v1", aliases=["production"])
    for number in ("v2", "v3"):
        stage.create_version(number)
    for number in ("v1", "v2", "v3"):
        stage.approve(number)
    stage.serve(model={"alias": {"modelName": stage.service, "name": "production"}})
    stage.settled("v1")
    load = stage.load()
    stage.move_alias("production", "v2", away_from="v1")
    second = stage.weight(20)
    assert second["version"] == stage.name("v2")
    stage.move_alias("production", "v3", away_from="v2")
    stage.settled("v3")
    stage.wait("all answers from v3", lambda: stage.newest(load, 10) == {stage.name("v3")})
    assert stage.candidate_weights(second["revision"])[:3] == [0, 20, 0]
    decisions = [(decision, weight) for decision, weight, _ in stage.decisions()]
    assert decisions == [
        ("Started", 0),
        ("Advanced", 20),
        ("Replaced", 0),
        ("Started", 0),
        ("Advanced", 20),
        ("Advanced", 50),
        ("Promoted", 100),
    ]
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("revoked", timed=True)
def test_taking_back_the_approval_of_what_is_rolled_out_undoes_it(stage: Stage) -> None:
    load = stage.start("v1")
    stage.register("v2")
    stage.move("v2")
    candidate = stage.weight(20)
    begin = stage.clock()
    stage.decide("v2", None)
    stage.wait("v2 undone", lambda: not stage.candidate())
    status = stage.expect(Ready="True/Serving")
    assert status["rejected"]["reason"] == "ApprovalRevoked"
    assert stage.decisions()[-1] == ("RolledBack", 0, "ApprovalRevoked")
    stage.wait("all traffic back", stage.carried_out)
    assert stage.candidate_weights(candidate["revision"]) == [0, 20, 0]
    stage.check_promise("the approval was taken back", begin, stage.undone(candidate["revision"]))
    stage.wait("the pods of v2 gone", lambda: not stage.pods("v2"))
    stage.wait("all answers from v1", lambda: stage.newest(load, 10) == {stage.name("v1")})


@pytest.mark.scenario("manual-gate")
def test_a_manual_gate_waits_for_a_person(stage: Stage) -> None:
    load = stage.start("v1", rollout={**CANARY, "manualGates": [20]})
    stage.register("v2")
    stage.move("v2")
    stage.wait("the gate", lambda: stage.candidate().get("phase") == "Waiting")
    assert stage.candidate()["weight"] == 20
    checked = stage.candidate()["checkedAt"]
    stage.wait("checks that go on", lambda: stage.candidate().get("checkedAt", "") > checked)
    assert stage.candidate()["weight"] == 20
    assert "tunewright resume" in stage.status()["message"]
    assert stage.request("resume")["outcome"] == "Done"
    stage.settled("v2")
    assert [decision for decision, _, _ in stage.decisions()] == [
        "Started",
        "Advanced",
        "Waiting",
        "Resumed",
        "Advanced",
        "Promoted",
    ]
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("last-word")
def test_without_auto_promote_a_person_has_the_last_word(stage: Stage) -> None:
    load = stage.start("v1", rollout={**CANARY, "autoPromote": False})
    stage.register("v2")
    stage.move("v2")
    stage.wait("the last gate", lambda: stage.candidate().get("phase") == "Waiting")
    assert stage.candidate()["weight"] == 50
    refused = stage.request("promote", revision="00000000")
    assert refused["outcome"] == "Refused"
    assert stage.candidate()["weight"] == 50
    assert stage.request("promote")["outcome"] == "Done"
    stage.settled("v2")
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("abort-retry")
def test_an_aborted_version_is_tried_again_only_when_somebody_asks(stage: Stage) -> None:
    load = stage.start("v1")
    stage.register("v2")
    stage.move("v2")
    revision = stage.weight(20)["revision"]
    assert stage.request("abort")["outcome"] == "Done"
    status = stage.rolled_back("Aborted")
    assert status["history"][0]["decision"] == "Aborted"
    stage.wait("the pods of v2 gone", lambda: not stage.pods("v2"))
    # A resync of Argo CD writes the same spec again.
    stage.move("v2")
    assert stage.request("abort", revision=revision)["outcome"] == "Refused"
    assert not stage.candidate()
    assert stage.request("retry", revision=revision)["outcome"] == "Done"
    stage.settled("v2")
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("paused")
def test_a_paused_rollout_keeps_its_weight_and_is_still_judged(stage: Stage) -> None:
    stage.start("v1")
    good = stage.behave("v2")
    stage.register("v2")
    stage.move("v2")
    stage.weight(20)
    assert stage.request("pause")["outcome"] == "Done"
    checked = stage.candidate().get("checkedAt", "")
    stage.wait("checks that go on", lambda: stage.candidate().get("checkedAt", "") > checked)
    assert (stage.candidate()["weight"], stage.candidate()["paused"]) == (20, True)
    good.errors = 0.5
    stage.rolled_back("ErrorRate")


@pytest.mark.scenario("newest-spec")
def test_a_new_spec_in_the_middle_starts_again_with_the_newest(stage: Stage) -> None:
    load = stage.start("v1")
    for number in ("v2", "v3"):
        stage.register(number)
    stage.move("v2")
    second = stage.weight(20)
    stage.move("v3")
    stage.wait("v3 on its way", lambda: stage.candidate().get("version") == stage.name("v3"))
    assert stage.candidate()["weight"] == 0
    stage.settled("v3")
    assert stage.candidate_weights(second["revision"])[:3] == [0, 20, 0]
    assert ("Replaced", 0) in [(decision, weight) for decision, weight, _ in stage.decisions()]
    stage.wait("the pods of v2 gone", lambda: not stage.pods("v2"))
    assert stage.stop(load).failures() == []


@pytest.mark.scenario("remembered")
def test_a_bad_version_is_remembered_until_the_spec_changes(stage: Stage) -> None:
    stage.start("v1")
    stage.behave("v2", errors=0.5)
    stage.register("v2")
    stage.move("v2")
    stage.rolled_back("ErrorRate")
    stage.change(replicas=2)
    stage.wait("two pods", lambda: stage.status()["stable"]["readyReplicas"] == 2)
    stage.rolled_back("ErrorRate")
    stage.wait("the pods of v2 gone", lambda: not stage.pods("v2"))
    stage.move("v1")
    status = stage.settled("v1")
    assert "rejected" not in status


@pytest.mark.scenario("nothing-to-lose")
def test_when_nothing_answers_the_next_version_takes_over_as_soon_as_it_can(stage: Stage) -> None:
    broken = stage.behave("v1")
    stage.register("v1")
    stage.serve("v1")
    stage.settled("v1")
    broken.ending = Ending(1, "gone")
    stage.expect(Ready="False/ContainerFailed")
    stage.register("v2")
    stage.move("v2")
    stage.settled("v2")
    assert [weights.whole for weights in stage.weights() if not weights.whole] == []


@pytest.mark.scenario("recreate")
def test_recreate_lets_the_old_pods_go_first(stage: Stage) -> None:
    stage.steps = []
    stage.register("v1")
    stage.serve("v1", rollout={"strategy": "Recreate", "progressDeadline": "15s"})
    stage.settled("v1")
    stage.behave("v2", loads=False)
    stage.register("v2")
    stage.move("v2")
    stage.wait("pods of v2", lambda: bool(stage.pods("v2")))
    assert all(pod.deleted for pod in stage.pods("v1"))
    stage.wait("v2 given up", lambda: stage.status().get("rejected"))
    stage.rolled_back("ProgressDeadlineExceeded")
    stage.behaviours["v3"] = Behaviour()
    stage.register("v3")
    stage.move("v3")
    stage.settled("v3")


@pytest.mark.scenario("drained")
def test_pods_that_are_replaced_lose_no_request(stage: Stage) -> None:
    """A node is drained: pods go one by one, as the PodDisruptionBudget allows."""
    stage.behave("v1", per_token=0.1)
    load = stage.start("v1", replicas=2)
    for pod in stage.pods():
        stage.wait("leave to evict it", partial(evicted, stage, pod))
        stage.wait("its end", partial(gone, pod))
    stage.wait("two other pods", lambda: len(stage.ready_pods()) == 2)
    stage.settled("v1")
    assert stage.stop(load).failures() == []


def gone(pod: Pod) -> bool:
    """Whether the pod is on its way out."""
    return pod.deleted


def evicted(stage: Stage, pod: Pod) -> bool:
    """Ask for what `kubectl drain` asks for; the PodDisruptionBudget says when."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}
    try:
        stage.arena.plane.api.create(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction", eviction)
    except ApiError as error:
        if error.code != 429:
            raise
        return False
    return True
