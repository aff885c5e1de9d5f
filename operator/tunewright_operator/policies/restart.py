"""Whether a lost training attempt is followed by another, and what is remembered of it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from tunewright_api.finetunejob import RestartPolicy
from tunewright_api.finetunejob_status import Restart
from tunewright_operator.observe.times import format_time, parse_optional
from tunewright_operator.policies.failure import Failure, describe_failure
from tunewright_operator.policies.loss import Loss


def remember(restarts: Sequence[Restart], attempt: int, loss: Loss, now: datetime) -> tuple[Restart, ...]:
    """Restarts with this attempt's entry; what was seen before is kept where nothing better is known now."""
    others = [r for r in restarts if r.attempt != attempt]
    old = next((r for r in restarts if r.attempt == attempt), None)
    if old and (loss.pod is None or (old.exit_code is not None and loss.exit_code is None)):
        return _in_order(*others, old)
    ended = old.time if old and loss.ended is None else format_time(loss.ended or now)
    new = Restart(
        attempt=attempt,
        time=ended,
        pod=loss.pod,
        node=loss.node,
        rank=loss.rank,
        exit_code=loss.exit_code,
        cause=loss.cause,
    )
    return _in_order(*others, new)


def recall(restart: Restart) -> Loss:
    """The loss that an entry tells of, when its pods are gone."""
    return Loss(
        restart.cause,
        f"the attempt ended with {restart.cause}",
        restart.pod,
        restart.node,
        restart.rank,
        restart.exit_code,
        parse_optional(restart.time),
    )


def forget_from(restarts: Iterable[Restart], attempt: int) -> tuple[Restart, ...]:
    """Restarts before this attempt: it was not lost after all."""
    return tuple(r for r in restarts if r.attempt < attempt)


def restart_refusal(policy: RestartPolicy, attempt: int, loss: Loss) -> Failure | None:
    """Why there is no further attempt; None if there is one."""
    if not loss.retriable:
        return describe_failure("train", loss)
    if attempt <= policy.max_restarts:
        return None
    return Failure(
        "RestartsExhausted",
        f"training was lost {attempt} times, which restartPolicy.maxRestarts ({policy.max_restarts}) does not allow; "
        f"the last time: {loss.message} ({loss.where}). Look at the node, then commit a FineTuneJob with a new name",
    )


def _in_order(*restarts: Restart) -> tuple[Restart, ...]:
    return tuple(sorted(restarts, key=lambda restart: restart.attempt))
