"""Whatever happens to its Jobs and pods, and whenever the operator dies: a FineTuneJob settles and writes no more."""

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving import conditions
from tests.training import NOW, Cluster, failed_result, job, settle, turn
from tunewright_api.names import LABEL_ATTEMPT, LABEL_STAGE, ExitCode, Stage
from tunewright_operator.kube.errors import AlreadyExists, Conflict, Forbidden, Transient
from tunewright_operator.reconcile import finetunejob as reconciler

Object = dict[str, Any]

TERMINAL = {"Complete", "Failed"}
CODES = [0, 1, 137, *(code.value for code in ExitCode if code is not ExitCode.OK)]


async def no_progress(host: str, port: int) -> None:
    """No pod can be reached."""


@pytest.fixture(autouse=True, scope="module")
def silent_trainer() -> Any:
    """For all examples of a property."""
    with patch.object(reconciler, "fetch_progress", no_progress):
        yield


def unfinished(cluster: Cluster) -> list[Object]:
    """Jobs that the controller has not judged yet, and that are not suspended."""
    jobs = cluster.of("Job")
    return [one for one in jobs if not one.get("status") and not one["spec"]["suspend"]]


def place(one: Object) -> tuple[Stage, int]:
    """Stage and attempt of a Job."""
    labels = one["metadata"]["labels"]
    return Stage(labels[LABEL_STAGE]), int(labels.get(LABEL_ATTEMPT, 1))


def start_pods(cluster: Cluster, number: int) -> None:
    """The pods of every open Job run."""
    for one in unfinished(cluster):
        stage, attempt = place(one)
        cluster.play_pods(stage, attempt=attempt)


def fail_one(cluster: Cluster, number: int) -> None:
    """A pod of every open Job ends with some exit code; the controller has not seen it yet."""
    for one in unfinished(cluster):
        stage, attempt = place(one)
        code = CODES[number % len(CODES)]
        known = ExitCode(code) if code in set(ExitCode) else None
        text = failed_result(known, "as it says") if known else ""
        cluster.fail_pod(stage, code or 1, text, attempt=attempt, index=number % one["spec"].get("completions", 1))


def judge_failed(cluster: Cluster, number: int) -> None:
    """The controller gives up every open Job."""
    for one in unfinished(cluster):
        stage, attempt = place(one)
        cluster.end_job(stage, "Failed", attempt=attempt)


def succeed(cluster: Cluster, number: int) -> None:
    """Every open Job succeeds."""
    for one in unfinished(cluster):
        stage, attempt = place(one)
        cluster.succeed(stage, attempt=attempt)


def drop_pods(cluster: Cluster, number: int) -> None:
    """Somebody removes every pod."""
    for key in [key for key in cluster.objects if key[0] == "Pod"]:
        del cluster.objects[key]


def delete_a_job(cluster: Cluster, number: int) -> None:
    """Somebody removes a Job."""
    jobs = cluster.of("Job")
    if jobs:
        del cluster.objects["Job", jobs[number % len(jobs)]["metadata"]["name"]]


def delete_a_helper(cluster: Cluster, number: int) -> None:
    """Somebody removes the Service, the ConfigMap or the NetworkPolicy."""
    helpers = [key for key in cluster.objects if key[0] in {"Service", "ConfigMap", "NetworkPolicy"}]
    if helpers:
        del cluster.objects[helpers[number % len(helpers)]]


HAPPENINGS: list[Callable[[Cluster, int], None]] = [
    start_pods,
    fail_one,
    judge_failed,
    succeed,
    drop_pods,
    delete_a_job,
    delete_a_helper,
]
events = st.lists(
    st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 40), st.booleans()),
    max_size=15,
)


@settings(max_examples=150, deadline=None)
@given(happenings=events)
async def test_any_history_settles_and_ends_well_once_everything_succeeds(
    happenings: list[tuple[Callable[[Cluster, int], None], int, bool]],
) -> None:
    cluster, obj = Cluster(), job()
    await settle(cluster, obj)
    for happen, number, forget in happenings:
        happen(cluster, number)
        if forget:  # the operator was down, and sees only what came of it
            continue
        await settle(cluster, obj)
        before = len(cluster.writes)
        again = await turn(cluster, obj)
        assert len(cluster.writes) == before, "a second look writes nothing"
        assert again.status == obj["status"]
    for _ in range(20):
        await settle(cluster, obj, NOW.replace(hour=20))
        if TERMINAL & conditions(obj).keys():
            break
        succeed(cluster, 0)
    assert TERMINAL & conditions(obj).keys(), obj["status"]
    attempts = [r["attempt"] for r in obj["status"]["restarts"]]
    assert attempts == sorted(set(attempts))
    assert len(attempts) <= 4, "restartPolicy.maxRestarts bounds the attempts"


class OperatorKilledError(Exception):
    """SIGKILL."""


@pytest.mark.parametrize("moment", range(1, 14))
async def test_killed_after_any_write_the_next_operator_goes_on_to_the_same_end(moment: int) -> None:
    cluster, obj = Cluster(), job()
    stored = copy.deepcopy(obj["status"])
    for _ in range(40):
        try:
            obj["status"] = copy.deepcopy(stored)
            result = await _turn_until(cluster, obj, moment)
            stored = result
        except OperatorKilledError:
            moment = 10_000  # the next one lives
        succeed(cluster, 0)
    obj["status"] = stored
    assert "Complete" in conditions(obj)
    names = sorted(name for kind, name in cluster.objects if kind == "Job")
    assert names == ["guide-evaluate", "guide-export", "guide-prepare", "guide-train-1"]
    assert [name for kind, name in cluster.objects if kind == "ModelVersion"] == ["guide-v1"]
    assert stored["evaluation"] == [{"metric": "Loss", "base": 4.5, "tuned": 1.25}]


async def _turn_until(cluster: Cluster, obj: Object, moment: int) -> Object:
    """One reconcile that dies after the cluster's nth write, before the status is written."""
    create = cluster.create

    async def deadly(manifest: Object) -> Object:
        stored = await create(manifest)
        if len(cluster.writes) == moment:
            raise OperatorKilledError
        return stored

    with patch.object(cluster, "create", deadly):
        await turn(cluster, obj)
    status: Object = obj["status"]
    return status


async def test_what_cannot_be_answered_now_is_raised_and_nothing_is_lost() -> None:
    cluster, obj = Cluster(), job()
    cluster.refuse["Job"] = Transient("the apiserver is busy", 503)
    with pytest.raises(Transient):
        await turn(cluster, obj)
    cluster.refuse.clear()
    await settle(cluster, obj)
    assert cluster.job(Stage.PREPARE)


async def test_suspend_touches_only_what_runs() -> None:
    cluster, obj = Cluster(), job()
    await settle(cluster, obj)
    cluster.succeed(Stage.PREPARE)
    await settle(cluster, obj)
    cluster.play_pods(Stage.TRAIN)
    obj["spec"]["suspend"] = True
    await settle(cluster, obj)
    assert [write for write in cluster.writes if write[0] == "patch"] == [("patch", "Job", "guide-train-1")]
    train = cluster.job(Stage.TRAIN)
    assert train
    assert train["spec"]["suspend"] is True


async def test_a_job_is_suspended_although_the_apiserver_refuses_something_else() -> None:
    cluster, obj = Cluster(), job()
    await settle(cluster, obj)
    cluster.succeed(Stage.PREPARE)
    await settle(cluster, obj)
    del cluster.objects["Service", "guide-train"]
    cluster.refuse["Service"] = Forbidden("exceeded quota: services", 403)
    obj["spec"]["suspend"] = True
    await turn(cluster, obj)
    train = cluster.job(Stage.TRAIN)
    assert train
    assert train["spec"]["suspend"] is True


async def test_a_config_map_of_the_teams_own_is_not_taken_over() -> None:
    cluster, obj = Cluster(), job()
    theirs = {"kind": "ConfigMap", "metadata": {"name": "guide-config", "namespace": "team", "uid": "theirs"}}
    cluster.put(theirs)
    result = await settle(cluster, obj)
    assert cluster.of("ConfigMap") == [theirs]
    assert not cluster.of("Job")
    assert conditions(obj)["Reconciling"] == ("True", "NameTaken")
    assert "ConfigMap guide-config exists already and was not made by Tunewright" in obj["status"]["message"]
    assert result.requeue_after
    del cluster.objects["ConfigMap", "guide-config"]
    await settle(cluster, obj)
    assert cluster.job(Stage.PREPARE)


async def test_a_version_that_appears_at_the_last_moment_is_looked_at_again() -> None:
    """Between our look and our write: the loop tries again, and then it is seen whose it is."""
    cluster, obj = Cluster(), job()
    await settle(cluster, obj)
    for stage in (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE):
        cluster.succeed(stage)
        await settle(cluster, obj)
    cluster.succeed(Stage.EXPORT)
    cluster.refuse["ModelVersion"] = AlreadyExists("guide-v1 already exists", 409)
    with pytest.raises(Conflict):
        await turn(cluster, obj)
    assert not cluster.of("ModelVersion")


async def test_a_version_with_a_dot_is_registered() -> None:
    cluster, obj = Cluster(), job(output={"uri": "pvc://data/models", "modelName": "guide", "version": "1.0"})
    await settle(cluster, obj)
    for stage in (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT):
        cluster.succeed(stage)
        await settle(cluster, obj)
    assert "Complete" in conditions(obj)
    assert obj["status"]["modelVersionRef"] == {"name": "guide-1.0"}
