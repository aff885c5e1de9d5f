"""`ask`, `chat` and `bench` against real HTTP: what is printed, what a broken answer is, and what the figures mean."""

import http.client
import io
import json
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import cli_objects as make
from tests.unit.cli.fakes import Script, forwarding_apiserver, model_server
from tunewright_cli.__main__ import run
from tunewright_cli.cluster.client import Api
from tunewright_cli.cluster.errors import ForbiddenError
from tunewright_cli.cluster.kubeconfig import ClusterConfig
from tunewright_cli.cluster.portforward import ForwardedConnection, PortForward
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.load.chat import AnswerError, chat_body, stream_chat
from tunewright_cli.load.endpoint import by_url, choose_revision
from tunewright_cli.load.runner import run_load
from tunewright_cli.load.statistics import Sample, percentile, report, speed, tpot, ttft


def test_ask_prints_the_answer_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    with model_server(script := Script()) as url:
        code = run(["ask", "guide", "What?", "--url", f"{url}/v1", "--max-tokens", "7", "--temperature", "0"])
    assert (code, capsys.readouterr().out) == (Exit.OK, "The answer.\n")
    ((body, _),) = script.seen
    assert body == {
        "model": "guide",
        "messages": [{"role": "user", "content": "What?"}],
        "max_tokens": 7,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_revision_is_asked_for_by_the_mesh_header() -> None:
    with model_server(script := Script()) as url:
        assert run(["ask", "guide", "What?", "--url", url, "--revision", "c0ffee12", "--model", "m"]) is Exit.OK
    ((body, headers),) = script.seen
    assert (body["model"], headers["x-tunewright-revision"]) == ("m", "c0ffee12")


def test_a_url_wants_the_hash_of_a_revision(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "guide", "--url", "http://127.0.0.1:9", "--revision", "candidate"]) is Exit.ERROR
    assert "--url needs the hash of a revision, not the word candidate" in capsys.readouterr().err


def test_a_service_may_be_named_with_its_kind() -> None:
    with model_server(script := Script()) as url:
        assert run(["ask", "tis/guide", "What?", "--url", url]) is Exit.OK
    assert script.seen[0][0]["model"] == "guide"


def test_the_first_token_is_timed_from_an_open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    dial, clock = http.client.HTTPConnection.connect, [0.0]

    def slowly(connection: http.client.HTTPConnection) -> None:
        clock[0] += 100  # the handshake of a far server
        dial(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", slowly)
    monkeypatch.setattr("tunewright_cli.load.runner.time.perf_counter", lambda: clock[0])
    with model_server(Script()) as url:
        (sample,) = run_load(by_url(url, "", 5), "guide", ["What?"], requests=1, concurrency=1, max_tokens=8)
    assert (sample.started, sample.first) == (100, 100)


def test_ctrl_c_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunewright_cli.load.endpoint.http.client.HTTPConnection.connect", interrupt)
    assert run(["ask", "guide", "What?", "--url", "http://127.0.0.1:9"]) is Exit.ERROR


@pytest.mark.parametrize(
    ("script", "code", "sentence"),
    [
        (Script(status=404, error="no model guide"), Exit.ERROR, "the server answered 404: no model guide"),
        (Script(status=503, error="loading"), Exit.NOT_READY, "the server answered 503: loading"),
        (Script(status=403, error="RBAC: access denied"), Exit.REFUSED, "the server answered 403: RBAC: access denied"),
        (Script(break_off=True), Exit.ERROR, "the answer broke off"),
    ],
    ids=["wrong model", "loading", "not allowed", "broken stream"],
)
def test_an_answer_that_is_not_whole_has_its_exit_code(
    script: Script, code: Exit, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with model_server(script) as url:
        assert run(["ask", "guide", "What?", "--url", url]) is code
    assert sentence in capsys.readouterr().err


def test_chat_sends_the_whole_conversation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nAnd now?\n\nnever sent\n"))
    with model_server(script := Script()) as url:
        assert run(["chat", "guide", "--url", url]) is Exit.OK
    assert capsys.readouterr().out == "The answer.\nThe answer.\n"
    assert [message["content"] for message in script.seen[1][0]["messages"]] == ["Hello", "The answer.", "And now?"]


def test_bench_measures_every_request(capsys: pytest.CaptureFixture[str]) -> None:
    with model_server(script := Script()) as url:
        line = ["bench", "guide", "--url", url, "--requests", "12", "--concurrency", "3", "-o", "json"]
        assert run(line) is Exit.OK
    figures = json.loads(capsys.readouterr().out)
    assert {key: figures[key] for key in ("requests", "errors", "concurrency", "outputTokens", "errorKinds")} == {
        "requests": 12,
        "errors": 0,
        "concurrency": 3,
        "outputTokens": 36,
        "errorKinds": {},
    }
    assert all(figures["ttftMilliseconds"][quantile] > 0 for quantile in ("p50", "p95", "p99"))
    assert len(script.seen) == 12
    # Three connections are kept, and no prompt is asked twice in a row.
    assert len({body["messages"][0]["content"] for body, _ in script.seen}) == 12


def test_bench_counts_errors_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with model_server(Script(break_off=True)) as url:
        assert (
            run(["bench", "guide", "--url", url, "--requests", "3", "--concurrency", "2", "-o", "json"]) is Exit.ERROR
        )
    figures = json.loads(capsys.readouterr().out)
    assert (figures["errors"], sum(figures["errorKinds"].values()), figures["outputTokens"]) == (3, 3, 0)


def test_nobody_at_the_url_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "guide", "What?", "--url", "http://127.0.0.1:9"]) is Exit.ERROR
    assert run(["ask", "guide", "What?", "--url", "guide:80"]) is Exit.ERROR
    assert "'guide:80' is no URL: write one such as http://127.0.0.1:8000/v1" in capsys.readouterr().err


def test_prompts_come_from_a_file(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("first\n\nsecond\n")
    with model_server(script := Script()) as url:
        line = ["bench", "guide", "--url", url, "--requests", "4", "--concurrency", "1", "--prompt-file", str(prompts)]
        assert run(line) is Exit.OK
    assert [body["messages"][0]["content"] for body, _ in script.seen] == ["first", "second", "first", "second"]
    assert "4 requests, 1 at a time" in capsys.readouterr().out
    assert run(["bench", "guide", "--url", "http://127.0.0.1:9", "--prompt-file", "/no/file"]) is Exit.ERROR


# --- through the apiserver ---------------------------------------------------------------------


def forward(url: str, port: int) -> PortForward:
    """A port-forward through this apiserver."""
    return PortForward(Api(ClusterConfig(server=url)), "team", "guide-1", port)


def test_answers_come_through_the_apiserver() -> None:
    long = tuple("word " * 2000 for _ in range(3))
    with model_server(script := Script(pieces=long)) as model:
        port = urlsplit(model).port or 0
        with forwarding_apiserver(port) as apiserver:
            connection = ForwardedConnection(forward(apiserver, port), 10)
            for _ in range(2):  # the second request uses the same stream
                body = chat_body("guide", [{"role": "user", "content": "Q" * 70_000}], 8)
                told = "".join(piece.text for piece in stream_chat(connection, "/v1", {}, body))
                assert told == "".join(long)
    assert [len(body["messages"][0]["content"]) for body, _ in script.seen] == [70_000, 70_000]


def test_what_the_node_says_is_the_error() -> None:
    with forwarding_apiserver(1, node_error="connection refused inside the pod") as apiserver:
        connection = ForwardedConnection(forward(apiserver, 1), 10)
        with pytest.raises(AnswerError, match="connection refused inside the pod"):
            list(stream_chat(connection, "/v1", {}, chat_body("guide", [], 1)))


def test_a_refused_forward_says_what_is_needed() -> None:
    with forwarding_apiserver(1, status=403, refusal="no") as apiserver, pytest.raises(ForbiddenError) as error:
        forward(apiserver, 1).connect()
    assert (error.value.code, str(error.value)) == (
        Exit.REFUSED,
        "you may not forward to pod guide-1: you need the verbs get and create on pods/portforward, or give --url",
    )
    sentence = re.escape("the port of pod guide-1 cannot be reached (404 no such pod): try again")
    with (
        forwarding_apiserver(1, status=404, refusal="no such pod") as apiserver,
        pytest.raises(CliError, match=sentence),
    ):
        forward(apiserver, 1).connect()


@pytest.mark.parametrize(
    ("given", "revision"), [("", make.STABLE), ("stable", make.STABLE), ("candidate", make.CANDIDATE), ("abc", "abc")]
)
def test_a_revision_is_named_by_its_role_or_its_hash(given: str, revision: str) -> None:
    assert choose_revision(make.service(status=make.rolling()), given) == revision


def test_a_role_that_nobody_has_is_not_ready() -> None:
    with pytest.raises(CliError, match="guide has no candidate revision, no rollout is under way") as error:
        choose_revision(make.service(), "candidate")
    assert error.value.code is Exit.NOT_READY


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h", "/v1"),
        ("http://h/v1/", "/v1"),
        ("https://h:1/guide", "/guide/v1"),
        ("http://h/guide/v1", "/guide/v1"),
    ],
)
def test_a_url_may_end_before_or_after_v1(url: str, path: str) -> None:
    assert by_url(url, "", 1).path == path


# --- figures -----------------------------------------------------------------------------------

values = st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False), min_size=1, max_size=200)


@given(values, st.floats(min_value=0, max_value=100), st.floats(min_value=0, max_value=100))
def test_percentiles_are_values_that_were_seen_and_rise(seen: list[float], one: float, other: float) -> None:
    low, high = percentile(seen, min(one, other)), percentile(seen, max(one, other))
    assert low is not None
    assert high is not None
    assert min(seen) <= low <= high <= max(seen)
    assert {low, high} <= set(seen)
    assert sum(value <= high for value in seen) >= len(seen) * max(one, other) / 100 - 1e-9


def test_the_figures_of_one_answer() -> None:
    sample = Sample(started=1.0, first=1.25, ended=3.25, tokens=11)
    assert (ttft(sample), tpot(sample), speed(sample)) == (250.0, 200.0, 11 / 2.25)
    assert tpot(sample._replace(tokens=1)) is None
    assert ttft(sample._replace(first=None)) is None


@given(
    st.lists(
        st.builds(Sample, st.floats(0, 10), st.none(), st.floats(10, 20), st.integers(0, 9), st.sampled_from(["", "x"]))
    )
)
def test_errors_are_counted_and_never_measured(samples: list[Sample]) -> None:
    figures = report(samples, 4)
    whole = [sample for sample in samples if not sample.error]
    assert (figures["requests"], figures["errors"]) == (len(samples), len(samples) - len(whole))
    assert figures["outputTokens"] == sum(sample.tokens for sample in whole)


def test_the_slowest_answers_are_the_low_speeds() -> None:
    samples = [Sample(0, 0.1, seconds, 10) for seconds in (1, 2, 5)]
    assert report(samples, 1)["tokensPerSecondPerRequest"] == {"p50": 5.0, "p95": 2.0, "p99": 2.0}
