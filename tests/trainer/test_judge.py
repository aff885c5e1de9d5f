"""The judge's client against a real HTTP server that misbehaves in every way that a judge does."""

import socket
from collections.abc import Sequence

import pytest

from tests.trainer.judge_server import judge_server
from tunewright_api.evaluation import EvaluationJudge
from tunewright_api.names import ENV_JUDGE_KEY, ExitCode
from tunewright_trainer.errors import StageError
from tunewright_trainer.evaluation.judge import ATTEMPTS, PAUSES, Case, read_score, score_answers

CASES = [Case("What is 1+1?", "2", answer) for answer in ("2", "3", "two")]


def judge(url: str) -> EvaluationJudge:
    """A judge at an address."""
    return EvaluationJudge(url=url, model="grader", rubric="5 for a right number")


def score(url: str, cases: Sequence[Case] = CASES, pauses: list[float] | None = None) -> float:
    """Score without waiting; `pauses` collects how long it would have waited."""
    return score_answers(judge(url), cases, sleep=(pauses if pauses is not None else []).append)


def test_the_mean_of_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_JUDGE_KEY, "key")
    with judge_server("5", "2", "4") as server:
        assert score(server.url) == pytest.approx(11 / 3)
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}
    assert {request.authorization for request in server.requests} == {"Bearer key"}
    assert {request.body["model"] for request in server.requests} == {"grader"}
    assert {request.body["temperature"] for request in server.requests} == {0}
    questions = sorted(request.question for request in server.requests)
    assert questions == sorted(
        f"Question:\nWhat is 1+1?\n\nReference:\n2\n\nAnswer:\n{case.answer}\n\nRubric:\n5 for a right number"
        for case in CASES
    )


def test_without_a_secret_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_JUDGE_KEY, raising=False)
    with judge_server("3") as server:
        assert score(server.url + "/", CASES[:1]) == 3
    assert server.requests[0].authorization is None


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(503, id="overloaded"),
        pytest.param(429, id="too many requests"),
        pytest.param("I cannot say", id="no score"),
        pytest.param(b'{"choices": []}', id="no choice"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b'{"choices": [{"message": {"content": null}}]}', id="no content"),
        pytest.param(b'{"choices": ["4"]}', id="no message"),
        pytest.param(
            b'{"choices": [{"finish_reason": "length", "message": {"content": "<think>It has 3"}}]}', id="cut off"
        ),
    ],
)
def test_a_hiccup_is_asked_again(bad: str | int | bytes) -> None:
    pauses: list[float] = []
    with judge_server(bad, bad, "4") as server:
        assert score(server.url, CASES[:1], pauses) == 4
    assert pauses == list(PAUSES[:2])


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        pytest.param(
            401, ExitCode.INVALID_CONFIG, "answered 401 Unauthorized (no model for key …): check", id="wrong key"
        ),
        pytest.param(
            404, ExitCode.INVALID_CONFIG, "answered 404 Not Found (no model for key …): check", id="wrong address"
        ),
        pytest.param(307, ExitCode.INVALID_CONFIG, "answered 307", id="a redirect is not followed"),
        pytest.param(
            500, ExitCode.INTERNAL, "answered 500 Internal Server Error (no model for key …) (5 attempts)", id="broken"
        ),
        pytest.param("6", ExitCode.INTERNAL, "answered '6' instead of a number from 1 to 5", id="out of the scale"),
        pytest.param(b"{}", ExitCode.INTERNAL, "something else than a chat completion", id="another API"),
    ],
)
def test_a_judge_that_fails_says_why_and_not_the_key(
    reply: str | int | bytes, code: ExitCode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_JUDGE_KEY, "secret")
    with judge_server(reply) as server, pytest.raises(StageError) as caught:
        score(server.url)
    assert caught.value.code is code
    assert caught.value.message.startswith(f"evaluation.judge {server.url} ")
    assert words in caught.value.message
    asked = 1 if code is ExitCode.INVALID_CONFIG else ATTEMPTS
    assert len(server.requests) <= asked * len(CASES)
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(StageError, match=r"cannot be reached: .*refused"):
            score(url, CASES[:1])


@pytest.mark.parametrize(
    ("reply", "want"),
    [
        ("4", 4),
        (" 4.\n", 4),
        ("Score: 4", 4),
        ("**Score: 3/5**", 3),
        ("4 out of 5", 4),
        ("[[2]]", 2),
        ('{"score": 5}', 5),
        ("<think>maybe 2, or 3</think>\n4", 4),
        ("It has 3 errors.\nScore: 2", 2),
        ("0", None),
        ("6", None),
        ("-4", None),
        ("4.5", None),
        ("between 3 and 4", None),
        ("", None),
        ("<think>4</think>", None),
        ("<think>3 unfinished", None),
    ],
)
def test_reading_a_score(reply: str, want: int | None) -> None:
    assert read_score(reply) == want
