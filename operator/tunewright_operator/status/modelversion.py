"""Status of a ModelVersion: is the artifact what the record says, and what did a person decide?

`Ready` means that the record is complete and true: verified. Whether it may be served is `Approved`'s matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tunewright_api.conditions import ConditionStatus
from tunewright_api.modelversion import Decision, ModelVersionSpec, ModelVersionStatus
from tunewright_api.names import ConditionType, ExitCode
from tunewright_operator.manifests.verify import verify_name
from tunewright_operator.observe.verification import JobState, Verification
from tunewright_operator.policies.servable import adapter_refusal
from tunewright_operator.status.conditions import FALSE, TRUE, UNKNOWN, find
from tunewright_operator.status.declare import State, declare


@dataclass(frozen=True)
class Version:
    """A ModelVersion, parsed."""

    namespace: str
    name: str
    generation: int
    spec: ModelVersionSpec
    status: ModelVersionStatus

    @property
    def verified(self) -> bool:
        """Whether the files were read and are the ones of the record; known for good once it is in status."""
        return self.status.verified_digest == self.spec.artifact.digest


@dataclass(frozen=True)
class Verdict:
    """What is known about the artifact; `settled` when nothing more happens by itself."""

    verified: ConditionStatus
    reason: str
    message: str
    settled: bool


# --- the artifact: ordered checks, first hit wins ---------------------------------------------


def _verified_before(version: Version, seen: Verification) -> Verdict | None:
    if not version.verified and seen.digest != version.spec.artifact.digest:
        return None
    message = f"every file of {version.spec.artifact.uri} has the recorded SHA-256"
    return Verdict(TRUE, "DigestMatches", message, settled=True)


def _other_digest(version: Version, seen: Verification) -> Verdict | None:
    """The pod ended well, but what it found is not what the record says."""
    if seen.digest is None:
        return None
    message = f"the files have {seen.digest}, and the record says {version.spec.artifact.digest}. {_again(version)}"
    return Verdict(FALSE, "DigestMismatch", message, settled=True)


def _mismatch(version: Version, seen: Verification) -> Verdict | None:
    problem = seen.problem
    if seen.job is not JobState.FAILED or problem is None or problem.exit_code != ExitCode.DIGEST_MISMATCH:
        return None
    return Verdict(FALSE, "DigestMismatch", f"{problem.message}. {_again(version)}", settled=True)


def _failed(version: Version, seen: Verification) -> Verdict | None:
    if seen.job is not JobState.FAILED or seen.problem is None:
        return None
    message = f"the artifact could not be verified: {seen.problem.message}. {_again(version)}"
    return Verdict(UNKNOWN, seen.problem.reason, message, settled=True)


def _failed_and_forgotten(version: Version, seen: Verification) -> Verdict | None:
    """The Job failed and its pods are gone: what was said when they could still be read holds."""
    if seen.job is not JobState.FAILED:
        return None
    said = find(version.status.conditions, ConditionType.VERIFIED)
    if said is not None and find(version.status.conditions, ConditionType.STALLED):
        return Verdict(said.status, said.reason, said.message, settled=True)
    message = f"the artifact could not be verified: {seen.job_message or 'its pods are gone'}. {_again(version)}"
    return Verdict(UNKNOWN, "VerificationFailed", message, settled=True)


def _claim_missing(version: Version, seen: Verification) -> Verdict | None:
    if seen.claim_exists:
        return None
    message = (
        f"{version.spec.artifact.uri}: there is no PersistentVolumeClaim of this name in namespace "
        f"{version.namespace}; verification starts once it exists"
    )
    return Verdict(UNKNOWN, "ClaimNotFound", message, settled=False)


def _refused(_: Version, seen: Verification) -> Verdict | None:
    if not seen.refused:
        return None
    message = f"the verification Job cannot be created: {seen.refused}"
    return Verdict(UNKNOWN, seen.refused_reason, message, settled=False)


def _hindered(_: Version, seen: Verification) -> Verdict | None:
    if seen.problem is None:
        return None
    return Verdict(UNKNOWN, seen.problem.reason, f"pod {seen.problem.pod}: {seen.problem.message}", settled=False)


def _running(version: Version, _: Verification) -> Verdict:
    return Verdict(UNKNOWN, "Verifying", f"reading the files of {version.spec.artifact.uri}", settled=False)


_CHECKS: tuple[Callable[[Version, Verification], Verdict | None], ...] = (
    _verified_before,
    _other_digest,
    _mismatch,
    _failed,
    _failed_and_forgotten,
    _claim_missing,
    _refused,
    _hindered,
)


def judge_artifact(version: Version, seen: Verification) -> Verdict:
    """What is known about the artifact now."""
    hit = next((verdict for check in _CHECKS if (verdict := check(version, seen))), None)
    return hit or _running(version, seen)


def _again(version: Version) -> str:
    return f"To verify again: kubectl -n {version.namespace} delete job {verify_name(version.name)}"


# --- the decision -----------------------------------------------------------------------------


def approval(version: Version) -> tuple[ConditionStatus, str, str]:
    """(status, reason, message) of `Approved`."""
    decided = version.spec.approval
    if decided is None:
        return UNKNOWN, "AwaitingDecision", f"waits for a decision. To approve: {approve_command(version)}"
    because = f": {decided.reason}" if decided.reason else ""
    if decided.decision is Decision.APPROVED:
        return TRUE, "Approved", f"approved by {decided.approved_by}{because}"
    return FALSE, "Rejected", f"rejected by {decided.approved_by}{because}"


def approve_command(version: Version) -> str:
    """The command by which somebody with the verb `approve` approves exactly this artifact."""
    return (
        f"kubectl -n {version.namespace} patch modelversion {version.name} --type merge -p "
        '\'{"spec":{"approval":{"decision":"Approved","approvedBy":"\'"$(kubectl auth whoami -o '
        'jsonpath={.status.userInfo.username})"\'","digest":"'
        f'{version.spec.artifact.digest}","reason":"WHY"}}}}}}\''
    )


# --- all of it --------------------------------------------------------------------------------


def compute_status(version: Version, seen: Verification, now: datetime) -> ModelVersionStatus:
    """The whole status."""
    verdict = judge_artifact(version, seen)
    states = [
        State(ConditionType.VERIFIED, verdict.verified, verdict.reason, verdict.message),
        State(ConditionType.APPROVED, *approval(version)),
        *_servable(version),
        *_summary(verdict),
    ]
    return ModelVersionStatus(
        observed_generation=version.generation,
        conditions=list(declare(tuple(version.status.conditions), states, generation=version.generation, now=now)),
        message=_sentence(version, verdict),
        verified_digest=(seen.digest or version.status.verified_digest) if verdict.verified is TRUE else None,
    )


def compute_invalid_status(
    generation: int, previous: ModelVersionStatus, error: str, now: datetime
) -> ModelVersionStatus:
    """Status of an object whose spec this operator cannot read (written under another schema)."""
    states = [
        State(ConditionType.ACCEPTED, FALSE, "InvalidSpec", error),
        State(ConditionType.READY, FALSE, "InvalidSpec", error),
        State(ConditionType.STALLED, TRUE, "InvalidSpec", error),
    ]
    return ModelVersionStatus(
        observed_generation=generation,
        conditions=list(declare(tuple(previous.conditions), states, generation=generation, now=now)),
        message=error,
    )


def _servable(version: Version) -> list[State]:
    """That an adapter is not served: said where it is approved, not only where somebody tries."""
    refusal = adapter_refusal(version.name, version.spec)
    return [State(ConditionType.SERVABLE, FALSE, refusal.reason, refusal.message)] if refusal else []


def _summary(verdict: Verdict) -> list[State]:
    """Ready, and Reconciling or Stalled while it is not."""
    if verdict.verified is TRUE:
        return [State(ConditionType.READY, TRUE, "Verified", "the record is complete and its artifact is intact")]
    kind = ConditionType.STALLED if verdict.settled else ConditionType.RECONCILING
    return [
        State(ConditionType.READY, FALSE, verdict.reason, verdict.message),
        State(kind, TRUE, verdict.reason, verdict.message),
    ]


def _sentence(version: Version, verdict: Verdict) -> str:
    """What matters now: the artifact until it is verified, then the decision."""
    return approval(version)[2] if verdict.verified is TRUE else verdict.message
