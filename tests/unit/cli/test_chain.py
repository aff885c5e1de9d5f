"""Objects -> chain: which objects belong together, how each is, and what a name means."""

import json
from typing import Any

import pytest

from tests import cli_objects as make
from tunewright_api.finetunejob_status import FineTuneJobStatus
from tunewright_api.inferenceservice import AliasRef, InferenceServiceSpec, ServedModel
from tunewright_api.modelversion import Decision, ModelVersionStatus
from tunewright_api.rollout_status import Phase
from tunewright_cli.chain import AmbiguousError, Objects, build_chain, find_focus
from tunewright_cli.chain.model import Chain, State
from tunewright_cli.chain.pods import describe_pod
from tunewright_cli.chain.service import steps_of
from tunewright_cli.chain.states import job_state, service_state, version_state
from tunewright_cli.exits import CliError

Object = dict[str, Any]


def everything() -> Objects:
    """Two jobs, their versions, and a service on its way from one to the other."""
    return Objects.of(
        make.NAMESPACE,
        [make.job(), make.job("guide-2", "v2"), make.job("other", "v3", make.training_job())],
        [make.version(aliases=["production"]), make.version("v2", made_by="guide-2")],
        [make.service(spec=make.canary(), status=make.rolling())],
        [
            make.pod("guide-9b6e7a66-a", revision=make.STABLE),
            make.pod("guide-c0ffee12-x", revision=make.CANDIDATE, status=make.crashing()),
            make.pod("guide-deadbee5-z", revision=make.BAD),
            make.pod("other-train-1-0", "FineTuneJob", "other", stage="train"),
            make.pod("other-prepare", "FineTuneJob", "other", stage="prepare", status={"phase": "Succeeded"}),
        ],
    )


def chain_of(name: str, objects: Objects | None = None) -> Chain:
    """The chain that the command line would show."""
    objects = objects or everything()
    return build_chain(find_focus(name, objects), objects)


def names(chain: Chain) -> list[tuple[str | None, str | None]]:
    """(job, version) of each lineage."""
    return [
        (one["job"]["name"] if one["job"] else None, one["version"]["name"] if one["version"] else None)
        for one in chain["lineages"]
    ]


@pytest.mark.parametrize(
    ("asked", "focus", "lineages", "services"),
    [
        ("guide", "InferenceService", [("guide", "guide-v1"), ("guide-2", "guide-v2")], ["guide"]),
        ("tis/guide", "InferenceService", [("guide", "guide-v1"), ("guide-2", "guide-v2")], ["guide"]),
        ("FineTuneJob/guide", "FineTuneJob", [("guide", "guide-v1")], ["guide"]),
        ("ftj/guide-2", "FineTuneJob", [("guide-2", "guide-v2")], ["guide"]),
        ("guide-v2", "ModelVersion", [("guide-2", "guide-v2")], ["guide"]),
        ("other", "FineTuneJob", [("other", None)], []),
    ],
    ids=[
        "the service stands for the job of its name, which is in its chain",
        "the service by its kind",
        "the job by its kind",
        "a job whose version is a candidate",
        "a version",
        "a job that still trains",
    ],
)
def test_a_name_leads_to_all_that_belongs_to_it(
    asked: str, focus: str, lineages: list[tuple[str, str]], services: list[str]
) -> None:
    chain = chain_of(asked)
    assert chain["focus"]["kind"] == focus
    assert names(chain) == lineages
    assert [service["name"] for service in chain["services"]] == services


def test_pods_are_with_their_revision_and_those_that_have_done_their_work_are_left_out() -> None:
    (service,) = chain_of("guide")["services"]
    assert service["stable"]
    assert service["candidate"]
    assert [pod["name"] for pod in service["stable"]["pods"]] == ["guide-9b6e7a66-a"]
    assert [(pod["status"], pod["ready"], pod["message"]) for pod in service["candidate"]["pods"]] == [
        ("CrashLoopBackOff", False, "exit code 66")
    ]
    assert [pod["name"] for pod in service["otherPods"]] == ["guide-deadbee5-z"]
    job = chain_of("other")["lineages"][0]["job"]
    assert job
    assert [pod["name"] for pod in job["pods"]] == ["other-train-1-0"]


def test_the_chain_is_json_in_the_words_of_the_api() -> None:
    chain = json.loads(json.dumps(chain_of("guide")))
    (service,) = chain["services"]
    assert (chain["namespace"], chain["state"], service["provider"]) == ("team", "Progressing", "Istio")
    assert {key: service["candidate"][key] for key in ("weight", "step", "steps", "phase", "checkedAt")} == {
        "weight": 20,
        "step": 2,
        "steps": [10, 20, 50],
        "phase": "Progressing",
        "checkedAt": "2026-11-22T14:59:48Z",
    }
    assert service["analysis"]["metrics"][2] == {
        "name": "TTFTP95",
        "stable": 212.0,
        "candidate": 230.4,
        "thresholdRange": {"max": 265.0},
        "verdict": "Pass",
        "message": "",
    }
    assert chain["lineages"][0]["version"]["approval"] == {
        "decision": "Approved",
        "by": "olivia@example.com",
        "reason": None,
    }


def test_an_alias_is_followed() -> None:
    spec = InferenceServiceSpec(model=ServedModel(alias=AliasRef(model_name="guide", name="production")))
    objects = Objects.of(
        make.NAMESPACE, [], [make.version(aliases=["production"]), make.version("v2")], [make.service(spec=spec)]
    )
    (service,) = chain_of("guide", objects)["services"]
    assert (service["alias"], service["wants"]) == ("guide@production", "guide-v1")


def test_a_service_that_has_gone_on_to_the_next_version_still_stands_for_the_first_job() -> None:
    objects = Objects.of(make.NAMESPACE, [make.job()], [make.version()], [make.service(version="guide-v2")])
    assert find_focus("guide", objects)["kind"] == "InferenceService"


def test_two_objects_of_a_name_that_do_not_belong_together_are_ambiguous() -> None:
    other = make.version(made_by=None, model="other")
    objects = Objects.of(make.NAMESPACE, [make.job()], [other], [make.service(version="other-v1")])
    with pytest.raises(AmbiguousError, match=r"^several objects are called guide: write tis/guide or ftj/guide$"):
        find_focus("guide", objects)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("gide", "there is no FineTuneJob, ModelVersion or InferenceService gide in namespace team: it has ftj/guide,"),
        ("mv/guide", "there is no ModelVersion guide in namespace team: it has"),
        ("pod/guide", "'pod' is no kind of Tunewright: write ftj/guide, mv/guide or tis/guide"),
    ],
)
def test_a_wrong_name_gets_a_sentence_with_names_to_try(asked: str, sentence: str) -> None:
    with pytest.raises(CliError) as error:
        find_focus(asked, everything())
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("rollout", "steps"),
    [
        ({"strategy": "Canary"}, [10, 20, 30, 40, 50]),
        ({"strategy": "Canary", "steps": [5, 50]}, [5, 50]),
        ({"strategy": "Canary", "stepWeight": 20, "maxWeight": 50}, [20, 40, 50]),
        ({"strategy": "Canary", "maxWeight": 5}, [5]),
        ({"strategy": "Canary", "stepWeight": 60}, [60]),
        ({"strategy": "BlueGreen"}, []),
    ],
)
def test_the_steps_are_those_that_the_operator_takes(rollout: Object, steps: list[int]) -> None:
    assert steps_of(rollout) == steps


def _job(**states: str) -> Object:
    return make.job(status=FineTuneJobStatus(observed_generation=1, conditions=make.conditions(**states)))


def _version(decided: bool = True, **states: str) -> Object:
    status = ModelVersionStatus(observed_generation=1, conditions=make.conditions(**states))
    return make.version(decided=decided, status=status)


REJECTED = make.version(approval=make.approved(make.DIGESTS["v1"], Decision.REJECTED, "wrong"))
NOT_APPROVED = make.serving().model_copy(
    update={"conditions": make.conditions(Accepted="True", Ready="False:NotApproved"), "stable": None}
)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        pytest.param(job_state(make.job()), State.READY, id="a complete job"),
        pytest.param(job_state(_job(Accepted="True")), State.PROGRESSING, id="a job under way"),
        pytest.param(job_state(_job(Accepted="False", Stalled="True")), State.FAILED, id="a job that cannot work"),
        pytest.param(job_state(_job(Failed="True", Stalled="True")), State.FAILED, id="a failed job"),
        pytest.param(job_state(_job(Suspended="True")), State.IDLE, id="a suspended job"),
        pytest.param(version_state(make.version()), State.READY, id="an approved version"),
        pytest.param(version_state(make.version(decided=False)), State.WAITING, id="a version that waits"),
        pytest.param(version_state(REJECTED), State.FAILED, id="a rejected version"),
        pytest.param(version_state(_version(Reconciling="True")), State.PROGRESSING, id="a version being verified"),
        pytest.param(version_state(_version(Verified="False", Stalled="True")), State.FAILED, id="a tampered version"),
        pytest.param(service_state(make.service()), State.READY, id="a service"),
        pytest.param(service_state(make.service(status=make.rolling())), State.PROGRESSING, id="a rollout"),
        pytest.param(
            service_state(make.service(status=make.rolling(phase=Phase.WAITING))), State.WAITING, id="a gate that waits"
        ),
        pytest.param(
            service_state(make.service(status=make.rolling(paused=True))), State.WAITING, id="a paused rollout"
        ),
        pytest.param(service_state(make.service(status=make.rolled_back())), State.DEGRADED, id="rolled back"),
        pytest.param(service_state(make.service(status=NOT_APPROVED)), State.WAITING, id="nobody has approved"),
    ],
)
def test_each_object_is_in_one_state(given: State, state: State) -> None:
    assert given is state


@pytest.mark.parametrize(
    ("status", "word", "message"),
    [
        ({"phase": "Pending"}, "Pending", ""),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
                ]
            },
            "Unschedulable",
            "no node",
        ),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]},
            "ImagePullBackOff",
            "not found",
        ),
        (
            make.crashing('{"outcome": "Failed", "message": "the digest differs"}'),
            "CrashLoopBackOff",
            "the digest differs",
        ),
        (make.crashing("line one\nline two\n\n"), "CrashLoopBackOff", "line two"),
        (
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
            "OOMKilled",
            "exit code 137",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}, "Evicted", "disk pressure"),
    ],
)
def test_a_pod_says_what_keeps_it(status: Object, word: str, message: str) -> None:
    pod = describe_pod(make.pod("p", status=status))
    assert (pod["status"], pod["message"], pod["ready"]) == (word, message, False)
