"""`why`: the first check that has not passed, and the fix that it calls for."""

from typing import Any

import pytest

from tests import cli_objects as make
from tests.unit.cli.conftest import NOW, Snapshot
from tests.unit.cli.test_views import CHAINS, CRASHED, by_alias, failed_job, objects, starting, tampered
from tunewright_api.finetunejob_status import FineTuneJobStatus, JobStage
from tunewright_api.inferenceservice import InferenceServiceSpec, InferenceServiceStatus, ServedModel, VersionRef
from tunewright_api.modelversion import Decision, ModelVersionStatus
from tunewright_api.rollout_status import Phase
from tunewright_cli.chain import Objects, find_focus
from tunewright_cli.commands.why import steps_of
from tunewright_cli.kinds import Kind
from tunewright_cli.readiness import Outcome, Step, first_open
from tunewright_cli.views.why import render_why

Object = dict[str, Any]


def steps(asked: str, given: Objects) -> list[Step]:
    """The checks of what the name means."""
    focus = find_focus(asked, given)
    kind = next(one for one in Kind if one.title == focus["kind"])
    return steps_of(kind, focus["name"], given)


def unseen(item: Object) -> Object:
    """The object before any operator has looked at it."""
    return item | {"status": {"observedGeneration": -1}}


def job_status(stage: JobStage = JobStage.PENDING, message: str = "", **states: str) -> FineTuneJobStatus:
    """Status of a job with these conditions."""
    return FineTuneJobStatus(observed_generation=1, conditions=make.conditions(**states), stage=stage, message=message)


def not_ready(reason: str, message: str, *, stalled: bool = False, **states: str) -> InferenceServiceStatus:
    """A service that does not answer."""
    kind = "Stalled" if stalled else "Reconciling"
    given = {"Accepted": "True", "Ready": f"False:{reason}:{message}", kind: f"True:{reason}:{message}"} | states
    return InferenceServiceStatus(observed_generation=1, conditions=make.conditions(**given), message=message)


def verifying() -> ModelVersionStatus:
    """The files are being read."""
    states = make.conditions(Verified="Unknown:Verifying:reading the files", Reconciling="True:Verifying")
    return ModelVersionStatus(observed_generation=1, conditions=states, message="reading the files")


def waiting_pod(reason: str, message: str) -> Object:
    """A pod whose container cannot start."""
    state = {"waiting": {"reason": reason, "message": message}}
    return make.pod(
        "guide-9b6e7a66-a",
        revision=make.STABLE,
        ready=False,
        status={"phase": "Pending", "containerStatuses": [{"name": "server", "restartCount": 0, "state": state}]},
    )


UNSCHEDULABLE = make.pod(
    "guide-9b6e7a66-a",
    revision=make.STABLE,
    status={
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "Insufficient nvidia.com/gpu",
            }
        ],
    },
)
OUT_OF_MEMORY = make.pod(
    "guide-9b6e7a66-a",
    revision=make.STABLE,
    status={
        "phase": "Running",
        "containerStatuses": [{"restartCount": 1, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}],
    },
)
TRAINING = make.pod("guide-train-1-0", "FineTuneJob", stage="train")
PENDING_TRAIN = make.pod("guide-train-1-1", "FineTuneJob", stage="train", status=UNSCHEDULABLE["status"])
SCALED = make.service(
    spec=InferenceServiceSpec(model=ServedModel(version_ref=VersionRef(name="guide-v1")), replicas=0),
    status=InferenceServiceStatus(observed_generation=1, conditions=make.conditions(Accepted="True")),
)
LOADING = not_ready("Loading", "0 of 1 pods of guide-v1 answered a completion")
NO_MESH = not_ready("IstioNotInstalled", "Istio is not installed in this cluster")
REJECTED = make.version(approval=make.approved(make.DIGESTS["v1"], Decision.REJECTED, "wrong"))

# what is there -> (the first check that has not passed, its outcome, words of its message, words of its fix)
CASES: dict[str, tuple[str, Objects, str, str, str]] = {
    "no operator looks at the service": (
        "guide",
        objects(make.version(), unseen(make.service())),
        "the operator has looked at it",
        "no operator has looked",
        "tunewright check",
    ),
    "the spec cannot be served": (
        "guide",
        objects(
            make.version(),
            make.service(
                status=not_ready("AdapterNotServable", "x", stalled=True, Accepted="False:A:it is an adapter")
            ),
        ),
        "the spec can be served",
        "it is an adapter",
        "correct the spec",
    ),
    "the version does not exist": (
        "guide",
        objects(make.service(status=not_ready("ModelVersionNotFound", "there is none"))),
        "its model version exists",
        "there is no ModelVersion guide-v1 in namespace team",
        "correct spec.model",
    ),
    "the alias leads nowhere": (
        "guide",
        objects(make.version(), by_alias()),
        "its model version exists",
        "has the alias production",
        "spec.aliases of exactly one",
    ),
    "the version is being verified": (
        "guide",
        objects(make.version(status=verifying()), make.service(status=not_ready("NotVerified", "not yet"))),
        "its files are what the record says",
        "reading the files",
        "wait",
    ),
    "the version was tampered with": (
        "guide",
        objects(make.version(status=tampered()), make.service(status=not_ready("DigestMismatch", "x", stalled=True))),
        "its files are what the record says",
        "was changed after export",
        "delete job guide-v1-verify",
    ),
    "nobody has approved": (
        "guide",
        objects(make.version(decided=False), make.service(status=not_ready("NotApproved", "waits"))),
        "a person has approved it",
        "guide-v1 waits for a decision",
        "tunewright approve guide-v1 -n team",
    ),
    "somebody has rejected": (
        "guide",
        objects(REJECTED, make.service(status=not_ready("Rejected", "x", stalled=True))),
        "a person has approved it",
        "was rejected by olivia@example.com: wrong",
        "another version",
    ),
    "the mesh is missing": (
        "guide",
        objects(make.version(), make.service(status=NO_MESH)),
        "the cluster has what the spec needs",
        "Istio is not installed",
        "install Istio",
    ),
    "Prometheus is not configured": (
        "guide",
        objects(
            make.version(), make.service(status=not_ready("PrometheusNotConfigured", "no Prometheus", stalled=True))
        ),
        "the cluster has what the spec needs",
        "no Prometheus",
        "prometheus.url",
    ),
    "a quota refuses the pods": (
        "guide",
        objects(make.version(), make.service(status=not_ready("PodsRefused", "exceeded quota"))),
        "its pods are created",
        "exceeded quota",
        "quota",
    ),
    "no node takes the pod": (
        "guide",
        objects(make.version(), make.service(status=LOADING), pods=(UNSCHEDULABLE,)),
        "its pods have started",
        "Insufficient nvidia.com/gpu",
        "add a node",
    ),
    "the image cannot be pulled": (
        "guide",
        objects(make.version(), make.service(status=LOADING), pods=(waiting_pod("ImagePullBackOff", "not found"),)),
        "its pods have started",
        "ImagePullBackOff: not found",
        "correct the image",
    ),
    "a Secret is missing": (
        "guide",
        objects(
            make.version(),
            make.service(status=LOADING),
            pods=(waiting_pod("CreateContainerConfigError", "secret not found"),),
        ),
        "its pods have started",
        "secret not found",
        "create the Secret",
    ),
    "the pod needs more memory": (
        "guide",
        objects(make.version(), make.service(status=LOADING), pods=(OUT_OF_MEMORY,)),
        "its pods stay up",
        "OOMKilled",
        "raise resources.memory",
    ),
    "the candidate crashes": (
        "guide",
        objects(make.version(), make.version("v2"), starting(), pods=CRASHED),
        "its pods stay up",
        "CrashLoopBackOff: vLLM refuses 100000",
        "correct spec.engine",
    ),
    "the model loads": (
        "guide",
        objects(make.version(), make.service(status=LOADING), pods=(make.pod("p", revision=make.STABLE, ready=False),)),
        "every pod has loaded the model",
        "0 of 1 pods answered",
        "wait",
    ),
    "it is scaled to zero": (
        "guide",
        objects(make.version(), SCALED),
        "a completion comes back",
        "scaled to zero",
        "spec.replicas",
    ),
    "the rollout was undone": (
        "guide",
        CHAINS["chain-rolled-back"][1],
        "the newest revision answers",
        "guide-v2 was rolled back: TTFTP95",
        "tunewright retry guide -n team",
    ),
    "a gate waits": (
        "guide",
        CHAINS["chain-gate"][1],
        "the newest revision answers",
        "waits for a person",
        "tunewright resume guide -n team",
    ),
    "the rollout is paused": (
        "guide",
        CHAINS["chain-paused"][1],
        "the newest revision answers",
        "is paused",
        "tunewright resume guide -n team",
    ),
    "a rollout goes on": (
        "guide",
        CHAINS["chain-canary"][1],
        "the newest revision answers",
        "guide-v2 has 20 percent",
        "wait",
    ),
    "a claim of the job is missing": (
        "guide",
        objects(make.job(status=job_status(Accepted="False:ClaimNotFound:no claim data", Reconciling="True"))),
        "the job can work",
        "no claim data",
        "create what the message names",
    ),
    "the job is suspended": (
        "guide",
        objects(
            {
                **(job := make.job(status=job_status(JobStage.SUSPENDED, Accepted="True", Suspended="True"))),
                "spec": job["spec"] | {"suspend": True},
            }
        ),
        "it is not suspended",
        "spec.suspend is true",
        "set spec.suspend to false",
    ),
    "the job trains": (
        "guide",
        objects(make.job(status=make.training_job()), pods=(TRAINING,)),
        "the model is trained",
        "39/90",
        "wait",
    ),
    "a training pod finds no node": (
        "guide",
        objects(make.job(status=make.training_job()), pods=(TRAINING, PENDING_TRAIN)),
        "the model is trained",
        "Insufficient nvidia.com/gpu",
        "add a node",
    ),
    "the job missed a gate": (
        "guide",
        objects(make.job(status=failed_job())),
        "the model keeps its gates",
        "Loss is 0.9",
        "under a new name",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_why_names_the_first_thing_to_do(name: str) -> None:
    asked, given, title, message, fix = CASES[name]
    found = first_open(steps(asked, given))
    assert found is not None
    assert found.title == title
    assert message in found.message
    assert fix in found.fix


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("guide", CHAINS["chain-ready"][1]),
        ("ftj/guide", CHAINS["chain-ready"][1]),
        ("guide-v1", CHAINS["chain-ready"][1]),
        ("guide", objects(make.version(), make.service(status=make.serving()))),
    ],
    ids=["service", "job", "version", "service whose pods we may not see"],
)
def test_what_is_ready_has_nothing_open(asked: str, given: Objects) -> None:
    found = steps(asked, given)
    assert [step.outcome for step in found] == [Outcome.PASSED] * len(found)


def test_what_comes_after_a_failure_is_open_and_not_blamed() -> None:
    outcomes = {step.title: step.outcome for step in steps("guide", CASES["nobody has approved"][1])}
    assert outcomes["a person has approved it"] is Outcome.WAITING
    assert outcomes["its pods are created"] is Outcome.OPEN
    assert outcomes["a completion comes back"] is Outcome.OPEN


def test_a_starting_candidate_does_not_hide_that_the_stable_one_answers() -> None:
    given = objects(
        make.version(),
        make.version("v2"),
        make.service(spec=make.canary(), status=make.rolling(phase=Phase.STARTING, weight=0, ready_replicas=0)),
    )
    outcomes = {step.title: step.outcome for step in steps("guide", given)}
    assert outcomes["a completion comes back"] is Outcome.PASSED


EVENT = {
    "metadata": {"name": "e"},
    "type": "Warning",
    "reason": "BackOff",
    "message": "Back-off restarting failed container server",
    "involvedObject": {"kind": "Pod", "name": "guide-c0ffee12-x"},
    "lastTimestamp": "2026-11-22T14:59:30Z",
}


@pytest.mark.parametrize(
    ("name", "case", "event", "log"),
    [
        ("why-crash", "the candidate crashes", EVENT, ["INFO loading", "ValueError: vLLM refuses 100000"]),
        ("why-unapproved", "nobody has approved", None, []),
        ("why-rolled-back", "the rollout was undone", None, []),
        ("why-training", "the job trains", None, []),
    ],
)
def test_the_answer(name: str, case: str, event: Object | None, log: list[str], snapshot: Snapshot) -> None:
    asked, given, *_ = CASES[case]
    snapshot(name, render_why(f"tis/{asked}", steps(asked, given), event, log, NOW))


def test_the_answer_when_all_is_well(snapshot: Snapshot) -> None:
    snapshot("why-ready", render_why("tis/guide", steps("guide", CHAINS["chain-ready"][1]), None, [], NOW))
