"""The state machine of what the server claims about itself."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright_server import readiness
from tunewright_server.readiness import Readiness, State
from tunewright_server.settings import Settings

SETTINGS = Settings(loading_silence=300, loading_limit=3600, stuck=180)

Step = Callable[[Readiness], Readiness]

STEPS: dict[str, Step] = {
    "loading": lambda r: readiness.loading(r, 1),
    "completed": lambda r: readiness.completed(r, 2),
    "not answering": lambda r: readiness.not_answering(r, "no answer", 3),
    "draining": lambda r: readiness.draining(r, 4),
    "failed": lambda r: readiness.failed(r, "vLLM exited", 5),
    "sign": lambda r: readiness.gave_sign(r, 6),
}

PATHS = [
    ([], State.VERIFYING, "the digest comes first"),
    (["loading"], State.LOADING, "then vLLM loads"),
    (["loading", "sign"], State.LOADING, "a sign of life is no readiness"),
    (["loading", "completed"], State.READY, "a completion makes it ready"),
    (["loading", "not answering"], State.UNHEALTHY, "a failing first completion does not"),
    (["loading", "completed", "not answering"], State.UNHEALTHY, "a later failure takes it back"),
    (["loading", "completed", "not answering", "completed"], State.READY, "and a completion returns it"),
    (["draining"], State.DRAINING, "SIGTERM counts while verifying"),
    (["loading", "completed", "draining", "completed"], State.DRAINING, "nothing makes a stopping server ready"),
    (["loading", "draining", "not answering"], State.DRAINING, "or unhealthy"),
    (["loading", "completed", "draining", "failed"], State.FAILED, "a crash while draining is told"),
    (["failed", "loading", "completed"], State.FAILED, "failure is final"),
]


@pytest.mark.parametrize(("steps", "want"), [pytest.param(s, w, id=i) for s, w, i in PATHS])
def test_paths(steps: list[str], want: State) -> None:
    current = readiness.verifying(0)
    for step in steps:
        current = STEPS[step](current)
    assert current.state is want
    assert readiness.ready(current) == (want is State.READY)


@given(st.lists(st.sampled_from(sorted(STEPS))))
def test_never_ready_unless_a_completion_was_the_last_news(steps: list[str]) -> None:
    current = readiness.verifying(0)
    for step in steps:
        current = STEPS[step](current)
    if readiness.ready(current):
        news = [step for step in steps if step != "sign"]
        assert news[-1] == "completed"
        assert not {"draining", "failed"} & set(steps)


def at(state: State, since: float = 0, alive_at: float = 0) -> Readiness:
    """A state that began and last gave a sign of life at these times."""
    return Readiness(state, "m", since, alive_at)


VERDICTS = [
    pytest.param(at(State.VERIFYING), 3599, None, id="hashing a large artifact takes its time"),
    pytest.param(at(State.VERIFYING), 3601, "Verifying for 3601 s", id="but not for ever"),
    pytest.param(at(State.LOADING), 299, None, id="a quiet load is not stuck yet"),
    pytest.param(at(State.LOADING), 301, "neither printed nor computed", id="a silent load is stuck"),
    pytest.param(at(State.LOADING, alive_at=3000), 3200, None, id="a load that shows life is loading"),
    pytest.param(at(State.LOADING, alive_at=3600), 3601, "Loading for 3601 s", id="a livelock is stuck"),
    pytest.param(at(State.READY, alive_at=100), 280, None, id="a recent completion"),
    pytest.param(at(State.READY, alive_at=100), 281, "no completion and no token", id="none for too long"),
    pytest.param(at(State.UNHEALTHY, since=10, alive_at=10), 191, "no token for 181 s: m", id="unhealthy for too long"),
    pytest.param(at(State.DRAINING), 10_000, None, id="a draining server is left alone"),
    pytest.param(at(State.FAILED), 1, "m", id="a failed one is dead"),
]


@pytest.mark.parametrize(("current", "now", "want"), VERDICTS)
def test_stuck(current: Readiness, now: float, want: str | None) -> None:
    verdict = readiness.stuck(current, SETTINGS, now)
    assert verdict is None if want is None else want in (verdict or "")


def test_unhealthy_keeps_when_it_began() -> None:
    current = readiness.not_answering(readiness.loading(readiness.verifying(0), 1), "first", 5)
    assert readiness.not_answering(current, "second", 9) == Readiness(State.UNHEALTHY, "second", 5, 5)


def test_defaults_leave_room_for_one_slow_completion() -> None:
    settings = Settings()
    assert settings.stuck > settings.completion + settings.completion_timeout + settings.check
    assert settings.engine_stop > settings.engine_drain
