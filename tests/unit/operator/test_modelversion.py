"""ModelVersion: every state of the contract, the one verification, and no write once settled."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kstatus import KStatus, kstatus
from tests.restricted import violations
from tests.serving import (
    CONFIG,
    DIGEST,
    NOW,
    FakeKube,
    check_golden,
    claim,
    conditions,
    decision,
    finish_job,
    pod,
    settle,
    terminated,
    turn,
)
from tests.serving import version as build_version
from tunewright_api.modelversion import ModelVersionStatus
from tunewright_api.names import LABEL_KIND, LABEL_NAME
from tunewright_api.results import Outcome, StageResult
from tunewright_operator.kube.errors import Forbidden
from tunewright_operator.reconcile.modelversion import reconcile

Object = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
LABELS = {LABEL_KIND: "ModelVersion", LABEL_NAME: "guide-v1"}
CHANGED = "model/config.json was changed after export: restore it, or register a new version"


def failed(exit_code: int, reason: str, message: str) -> Object:
    """The pod of a verification that failed with our own result."""
    text = StageResult(outcome=Outcome.FAILED, reason=reason, message=message).to_message()
    return pod("guide-v1-verify-x", LABELS, state=terminated(exit_code, text))


def unschedulable() -> Object:
    """A pod that no node takes."""
    waiting = pod("guide-v1-verify-x", LABELS)
    waiting["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
        ],
    }
    return waiting


async def start(kube: FakeKube, obj: Object) -> None:
    """Until the Job exists."""
    await turn(reconcile, kube, obj)


async def verified(kube: FakeKube, obj: Object) -> None:
    """Until the Job has succeeded."""
    await start(kube, obj)
    finish_job(kube, "Complete")


def verification_ends(*pods: Object, message: str = "") -> Callable[..., Any]:
    """Until the Job has failed, with these pods left."""

    async def play(kube: FakeKube, obj: Object) -> None:
        await start(kube, obj)
        finish_job(kube, "Failed", message)
        kube.put(*pods)

    return play


async def no_claim(kube: FakeKube, obj: Object) -> None:
    kube.objects.pop(("PersistentVolumeClaim", "data"))


async def hindered(kube: FakeKube, obj: Object) -> None:
    await start(kube, obj)
    kube.put(unschedulable())


async def over_quota(kube: FakeKube, obj: Object) -> None:
    kube.refuse["Job"] = Forbidden("exceeded quota: jobs", 403)


async def pods_forgotten(kube: FakeKube, obj: Object) -> None:
    """The failure was reported, then the pod was removed."""
    await verification_ends(failed(77, "DigestMismatch", CHANGED))(kube, obj)
    await turn(reconcile, kube, obj)
    kube.objects.pop(("Pod", "guide-v1-verify-x"))


async def result_on_its_way(kube: FakeKube, obj: Object) -> None:
    """The Job's watch is ahead of the pods'."""
    await verification_ends(pod("guide-v1-verify-x", LABELS))(kube, obj)


@dataclass(frozen=True)
class Case:
    """What happens, and what status must say."""

    play: Callable[..., Any]
    want: dict[str, tuple[str, str]]
    kstatus: KStatus
    says: str
    approval: Object | None = None


def progressing(reason: str) -> dict[str, tuple[str, str]]:
    return {"Verified": ("Unknown", reason), "Ready": ("False", reason), "Reconciling": ("True", reason)}


UNDECIDED = {"Approved": ("Unknown", "AwaitingDecision")}
VERIFIED = {"Verified": ("True", "DigestMatches"), "Ready": ("True", "Verified")}
MISMATCH = {
    "Verified": ("False", "DigestMismatch"),
    "Ready": ("False", "DigestMismatch"),
    "Stalled": ("True", "DigestMismatch"),
}

CASES = {
    "the files are being read": Case(
        start, progressing("Verifying") | UNDECIDED, KStatus.IN_PROGRESS, "reading the files of pvc://data"
    ),
    "verified, nobody decided": Case(
        verified, VERIFIED | UNDECIDED, KStatus.CURRENT, "kubectl -n team patch modelversion guide-v1"
    ),
    "verified and approved": Case(
        verified,
        VERIFIED | {"Approved": ("True", "Approved")},
        KStatus.CURRENT,
        "approved by olivia@example.com: it answers well",
        decision(),
    ),
    "verified and rejected": Case(
        verified,
        VERIFIED | {"Approved": ("False", "Rejected")},
        KStatus.CURRENT,
        "rejected by olivia@example.com: it answers well",
        decision("Rejected"),
    ),
    "approved before it is verified": Case(
        start,
        progressing("Verifying") | {"Approved": ("True", "Approved")},
        KStatus.IN_PROGRESS,
        "reading the files",
        decision(),
    ),
    "a file was changed": Case(
        verification_ends(failed(77, "DigestMismatch", CHANGED)),
        MISMATCH | UNDECIDED,
        KStatus.FAILED,
        "model/config.json was changed after export",
    ),
    "a file was changed, and the pod is gone": Case(
        pods_forgotten, MISMATCH | UNDECIDED, KStatus.FAILED, "model/config.json was changed after export"
    ),
    "the files cannot be read": Case(
        verification_ends(failed(66, "InputNotReadable", "no permission to read model/a.safetensors")),
        {
            "Verified": ("Unknown", "InputNotReadable"),
            "Ready": ("False", "InputNotReadable"),
            "Stalled": ("True", "InputNotReadable"),
        }
        | UNDECIDED,
        KStatus.FAILED,
        "To verify again: kubectl -n team delete job guide-v1-verify",
    ),
    "the Job failed and left nothing": Case(
        verification_ends(message="Job has reached the specified backoff limit"),
        {
            "Verified": ("Unknown", "VerificationFailed"),
            "Ready": ("False", "VerificationFailed"),
            "Stalled": ("True", "VerificationFailed"),
        }
        | UNDECIDED,
        KStatus.FAILED,
        "backoff limit",
    ),
    "the Job failed and its result is on its way": Case(
        result_on_its_way, progressing("Verifying") | UNDECIDED, KStatus.IN_PROGRESS, "reading the files"
    ),
    "there is no claim": Case(
        no_claim, progressing("ClaimNotFound") | UNDECIDED, KStatus.IN_PROGRESS, "no PersistentVolumeClaim"
    ),
    "no node takes the pod": Case(
        hindered, progressing("Unschedulable") | UNDECIDED, KStatus.IN_PROGRESS, "0/1 nodes are available"
    ),
    "a quota refuses the Job": Case(
        over_quota, progressing("VerificationRefused") | UNDECIDED, KStatus.IN_PROGRESS, "exceeded quota: jobs"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_status_of_every_state(case: Case) -> None:
    kube, obj = FakeKube(), build_version(approval=case.approval)
    kube.put(claim())
    await case.play(kube, obj)
    await settle(reconcile, kube, obj)
    assert conditions(obj) == case.want
    assert kstatus(obj) is case.kstatus
    assert case.says in obj["status"]["message"]
    assert all(c["observedGeneration"] == 1 for c in obj["status"]["conditions"])


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        pytest.param("Lora", "a FineTuneJob with export.merge: true makes one", id="LoRA"),
        pytest.param("PrefixTuning", "vLLM does not serve it: load it with peft", id="a prefix"),
        pytest.param("LlamaAdapter", "vLLM does not serve it: load it with peft", id="a LLaMA-Adapter"),
    ],
)
async def test_an_adapter_says_that_it_is_not_served(adapter: str, says: str) -> None:
    kube, obj = FakeKube(), build_version(kind="Adapter", adapterType=adapter)
    kube.put(claim())
    await verified(kube, obj)
    await settle(reconcile, kube, obj)
    assert conditions(obj) == VERIFIED | UNDECIDED | {"Servable": ("False", "AdapterNotServable")}
    (servable,) = (c for c in obj["status"]["conditions"] if c["type"] == "Servable")
    assert says in servable["message"]
    assert kstatus(obj) is KStatus.CURRENT


def test_before_the_first_look_it_is_in_progress() -> None:
    assert kstatus(build_version()) is KStatus.IN_PROGRESS


async def test_a_spec_of_another_schema_is_refused() -> None:
    obj = build_version(kind="Sparse")
    await turn(reconcile, FakeKube(), obj)
    assert conditions(obj)["Accepted"] == ("False", "InvalidSpec")
    assert kstatus(obj) is KStatus.FAILED
    assert "spec.kind" in obj["status"]["message"]


async def test_the_job_goes_once_its_result_is_in_status_and_never_comes_back() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await verified(kube, obj)
    result = await turn(reconcile, kube, obj)
    assert obj["status"]["verifiedDigest"] == DIGEST
    assert kube.of("Job"), "the result must be stored before its only other record is removed"
    assert result.requeue_after == 1
    await settle(reconcile, kube, obj)
    assert not kube.of("Job")
    assert not kube.of("ConfigMap")
    kube.objects.clear()
    kube.writes.clear()
    await settle(reconcile, kube, obj)
    assert kube.writes == []


async def test_what_the_pod_found_is_compared_with_the_record() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, obj)
    other = "sha256:" + "b" * 64
    finish_job(kube, "Complete", digest=other)
    await settle(reconcile, kube, obj)
    assert conditions(obj) == MISMATCH | UNDECIDED
    assert f"the files have {other}, and the record says {DIGEST}" in obj["status"]["message"]
    assert "verifiedDigest" not in obj["status"]


async def test_a_result_that_nobody_read_is_waited_for_and_then_found_again() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, obj)
    finish_job(kube, "Complete", digest=None)
    result = await settle(reconcile, kube, obj)
    assert conditions(obj) == progressing("Verifying") | UNDECIDED
    assert result.requeue_after == 1
    late = NOW + timedelta(seconds=CONFIG.result_grace)
    await turn(reconcile, kube, obj, late)
    assert not kube.of("Job")
    await turn(reconcile, kube, obj, late)
    finish_job(kube, "Complete")
    await settle(reconcile, kube, obj, late)
    assert obj["status"]["verifiedDigest"] == DIGEST


async def test_a_config_map_that_somebody_deleted_comes_back() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, obj)
    kube.objects.pop(("ConfigMap", "guide-v1-verify"))
    await settle(reconcile, kube, obj)
    assert kube.of("ConfigMap")
    assert [write for write in kube.writes if write[1] == "Job"] == [("create", "Job", "guide-v1-verify")]


async def test_deleting_the_failed_job_verifies_again() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await verification_ends(failed(77, "DigestMismatch", CHANGED))(kube, obj)
    await settle(reconcile, kube, obj)
    kube.objects.pop(("Job", "guide-v1-verify"))
    kube.objects.pop(("Pod", "guide-v1-verify-x"))
    await settle(reconcile, kube, obj)
    assert conditions(obj)["Verified"] == ("Unknown", "Verifying")
    assert kube.of("Job")


async def test_the_verification_of_a_deleted_version_of_the_same_name_is_not_adopted() -> None:
    """Its files may have been others; the garbage collector has not come by yet."""
    kube, old = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, old)
    finish_job(kube, "Complete")
    new = build_version()
    new["metadata"]["uid"] = "uid-of-the-next"
    result = await settle(reconcile, kube, new)
    assert conditions(new) == progressing("NameTaken") | UNDECIDED
    assert "is left from a deleted ModelVersion of the same name" in new["status"]["message"]
    assert "verifiedDigest" not in new["status"]
    assert result.requeue_after
    for kind in ("Job", "ConfigMap"):
        kube.objects.pop((kind, "guide-v1-verify"))
    await settle(reconcile, kube, new)
    assert conditions(new) == progressing("Verifying") | UNDECIDED
    assert kube.of("Job")[0]["metadata"]["ownerReferences"][0]["uid"] == "uid-of-the-next"


async def test_another_image_does_not_touch_a_running_verification() -> None:
    """A Job's template is immutable: applying it again would be refused."""
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, obj)
    kube.of("Job")[0]["metadata"]["annotations"] = {}
    writes = len(kube.writes)
    await settle(reconcile, kube, obj)
    assert len(kube.writes) == writes


async def test_the_approve_command_is_complete() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await verified(kube, obj)
    await settle(reconcile, kube, obj)
    command = obj["status"]["message"].split("To approve: ")[1]
    assert command == (
        "kubectl -n team patch modelversion guide-v1 --type merge -p "
        '\'{"spec":{"approval":{"decision":"Approved","approvedBy":"\'"$(kubectl auth whoami '
        '-o jsonpath={.status.userInfo.username})"\'",'
        f'"digest":"{DIGEST}","reason":"WHY"}}}}}}\''
    )


@given(data=st.data())
async def test_any_order_of_events_ends_in_one_verified_state_without_further_writes(data: st.DataObject) -> None:
    """Reconciles at any moment, a job that ends at any moment, an operator that forgets everything in between."""
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    for event in data.draw(st.lists(st.sampled_from(["turn", "stale", "finish"]), max_size=8)):
        before = copy.deepcopy(obj)
        if event == "finish":
            finish_job(kube, "Complete")
        else:
            await turn(reconcile, kube, obj)
        if event == "stale":
            obj = before  # killed between its writes and its status
    await settle(reconcile, kube, obj)
    finish_job(kube, "Complete")
    await settle(reconcile, kube, obj)
    assert conditions(obj) == VERIFIED | UNDECIDED
    assert [key for key in kube.objects if key[0] not in {"PersistentVolumeClaim", "Pod"}] == []
    kube.writes.clear()
    await settle(reconcile, kube, obj)
    assert kube.writes == []
    ModelVersionStatus.model_validate(obj["status"])


async def test_the_children_are_as_written_down() -> None:
    kube, obj = FakeKube(), build_version()
    kube.put(claim())
    await start(kube, obj)
    assert violations(kube.of("Job")[0]["spec"]["template"]["spec"]) == []
    check_golden(GOLDEN / "modelversion.yaml", [*kube.of("ConfigMap"), *kube.of("Job")])
