"""What the server may claim about itself: a state machine of pure functions.

    Verifying -> Loading -> Ready <-> Unhealthy
         any of these -> Draining -> (the process ends)
         all of these -> Failed

Times are seconds of a monotonic clock. `ready` and `stuck` are the two verdicts the kubelet asks for.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from tunewright_server.settings import Settings


class State(StrEnum):
    """Where the server stands; GET /ready shows it."""

    VERIFYING = "Verifying"
    LOADING = "Loading"
    READY = "Ready"
    UNHEALTHY = "Unhealthy"
    DRAINING = "Draining"
    FAILED = "Failed"


@dataclass(frozen=True)
class Readiness:
    """The state, a sentence about it, when it began, and when the engine last gave a sign of life."""

    state: State
    message: str
    since: float
    alive_at: float


def verifying(now: float) -> Readiness:
    """The beginning: the artifact's digest is being recomputed."""
    return Readiness(State.VERIFYING, "the artifact's digest is being verified", now, now)


def loading(current: Readiness, now: float) -> Readiness:
    """The digest is right and vLLM was started."""
    return _enter(current, State.LOADING, "vLLM is loading the model", now)


def gave_sign(current: Readiness, at: float) -> Readiness:
    """The engine printed, computed or generated something."""
    return replace(current, alive_at=max(current.alive_at, at))


def completed(current: Readiness, at: float) -> Readiness:
    """A real completion came back from the model: the only way to Ready."""
    return gave_sign(_enter(current, State.READY, "a completion came back from the model", at), at)


def not_answering(current: Readiness, message: str, now: float) -> Readiness:
    """vLLM listens, or did once, but a check failed."""
    if current.state is State.UNHEALTHY:
        return replace(current, message=message)
    return _enter(current, State.UNHEALTHY, message, now)


def draining(current: Readiness, now: float) -> Readiness:
    """SIGTERM arrived: no new requests, please."""
    return _enter(current, State.DRAINING, "the server is stopping: running requests are being finished", now)


def failed(current: Readiness, message: str, now: float) -> Readiness:
    """The process is about to end."""
    return replace(current, state=State.FAILED, message=message, since=now)


def ready(current: Readiness) -> bool:
    """Whether requests may be sent here."""
    return current.state is State.READY


def stuck(current: Readiness, settings: Settings, now: float) -> str | None:
    """Why the container should be restarted, or None while there is hope."""
    silence, age = now - current.alive_at, now - current.since
    match current.state:
        case State.FAILED:
            return current.message
        case State.VERIFYING | State.LOADING if age > settings.loading_limit:
            return f"{current.state} for {age:.0f} s, longer than {settings.loading_limit:.0f} s"
        case State.LOADING if silence > settings.loading_silence:
            return f"vLLM has neither printed nor computed anything for {silence:.0f} s while loading"
        case State.READY | State.UNHEALTHY if silence > settings.stuck:
            return f"no completion and no token for {silence:.0f} s: {current.message}"
        case _:
            return None


def _enter(current: Readiness, state: State, message: str, now: float) -> Readiness:
    """Move to the state, unless the server is on its way out; staying keeps `since`."""
    if current.state in (State.DRAINING, State.FAILED):
        return current
    if current.state is state:
        return replace(current, message=message)
    return Readiness(state, message, now, now)
