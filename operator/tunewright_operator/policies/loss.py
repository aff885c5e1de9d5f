"""Why a stage was lost: which pod ended first by a failure of its own, and whether trying again may help.

When one pod of a gang dies, its peers lose their connection and the Job controller deletes them: their ends say
nothing. So pods with a cause of their own come first, then pods that somebody stopped, then pods that lost a peer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tunewright_api.names import ExitCode
from tunewright_api.results import Outcome
from tunewright_operator.observe.jobs import JobView
from tunewright_operator.observe.pods import PodView

OUT_OF_MEMORY = ExitCode.OUT_OF_MEMORY.reason
SIGKILL, SIGTERM = 137, 143
_STOPPED = {ExitCode.PREEMPTED.value, SIGTERM}
# The verdict follows from the cause alone, and the cause is remembered: it is the same whenever one looks.
_FINAL = {code.reason for code in ExitCode if code is not ExitCode.OK and not code.retriable}
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Loss:
    """The pod that ended first, and why. `node` and `rank` are unknown when the pod vanished unseen."""

    cause: str
    message: str
    pod: str | None = None
    node: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    ended: datetime | None = None

    @property
    def retriable(self) -> bool:
        """Whether the same attempt may succeed the next time."""
        return self.cause not in _FINAL

    @property
    def where(self) -> str:
        """`pod p, node n, rank r, exit code c`, as far as known."""
        parts = (("pod", self.pod), ("node", self.node), ("rank", self.rank), ("exit code", self.exit_code))
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None)


def find_loss(job: JobView) -> Loss | None:
    """The loss that its pods tell of; None while no pod has failed, but for those that a suspension has ended."""
    return _first_failure(job.current_pods)


def find_orphaned(pods: Iterable[PodView]) -> Loss | None:
    """The loss of an attempt whose Job was deleted while it ran: its pods are stopped. None while none of them is."""
    loss = _first_failure(pods)
    if loss and loss.cause == "PodDeleted":
        return replace(loss, cause="JobDeleted", message="its Job was deleted")
    return loss


def vanished(job: JobView) -> Loss:
    """The loss of a Job that failed while no failed pod is left to ask."""
    return Loss("PodLost", f"the pod is gone; the Job says: {job.message}", ended=job.ended)


def _first_failure(pods: Iterable[PodView]) -> Loss | None:
    failed = [pod for pod in pods if pod.failed]
    return _describe(min(failed, key=_precedence)) if failed else None


def _precedence(pod: PodView) -> tuple[int, datetime, int]:
    return _rank_of_cause(pod), pod.ended or pod.deleted or _LAST, pod.index


def _rank_of_cause(pod: PodView) -> int:
    if pod.disrupted_by:
        return 0
    if pod.exit_code == ExitCode.PEER_LOST:
        return 2
    stopped = pod.exit_code in _STOPPED or (pod.deleted is not None and not pod.exit_code)
    return 1 if stopped else 0


def _describe(pod: PodView) -> Loss:
    cause, message = _cause(pod)
    return Loss(cause, message, pod.name, pod.node, pod.index, pod.exit_code, pod.ended or pod.deleted)


def _cause(pod: PodView) -> tuple[str, str]:
    """(cause, message); ordered, first hit wins."""
    known = _known(pod.exit_code)
    if pod.disrupted_by:
        return pod.disrupted_by, f"the pod was disrupted ({pod.disrupted_by})"
    told = _told(pod, known)
    # A trainer that knows the cause also knows what would help; a worker killed for memory may be a riddle to it.
    if pod.ended_by == "OOMKilled" and (told is None or told[0] not in _FINAL):
        return OUT_OF_MEMORY, "the container needed more memory than its limit"
    if told:
        return told
    if pod.deleted and known in {None, ExitCode.PREEMPTED}:
        return "PodDeleted", "the pod was deleted"
    if known:
        return known.reason, f"the trainer ended with {known.reason}"
    if pod.exit_code == SIGKILL:
        return "Killed", "the container was killed (SIGKILL)"
    if pod.exit_code is not None:
        return "ContainerFailed", f"the container ended with exit code {pod.exit_code}"
    return pod.ended_by or "PodFailed", f"the pod failed ({pod.ended_by or 'no reason given'})"


def _told(pod: PodView, known: ExitCode | None) -> tuple[str, str] | None:
    """(cause, message) that the trainer left behind."""
    if pod.result is None or pod.result.outcome is not Outcome.FAILED:
        return None
    reason = pod.result.reason or (known.reason if known else "Failed")
    return reason, pod.result.message or reason


def _known(exit_code: int | None) -> ExitCode | None:
    try:
        return ExitCode(exit_code) if exit_code else None
    except ValueError:
        return None
