"""The operator's clients against real HTTP servers: right answers, and every way to fail as one sentence."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tunewright_api.names import HEADER_PROBE
from tunewright_operator.clients import outward
from tunewright_operator.clients.models import ModelError, ask, judge
from tunewright_operator.clients.prometheus import PrometheusError, query_round

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@asynccontextmanager
async def serving(path: str, handler: Handler, method: str = "GET") -> AsyncIterator[str]:
    """Base URL of a server that answers one path."""
    app = web.Application()
    app.router.add_route(method, path, handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of a test is on this machine."""
    monkeypatch.setattr(outward, "is_inward", lambda _: False)


def vector(*samples: tuple[dict[str, str], str]) -> dict[str, Any]:
    """An instant vector as Prometheus answers it."""
    result = [{"metric": labels, "value": [1.0, value]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


async def test_a_round_asks_every_query_at_the_same_moment() -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.query["query"], request.query["time"]))
        return web.json_response(vector(({"revision": "aaaa"}, "0.5"), ({"revision": "bbbb"}, "NaN")))

    async with serving("/api/v1/query", answer) as url:
        vectors = await query_round(f"{url}/", {"Requests": "sum(a)", "ErrorRate": "sum(b)"}, NOW)
    assert sorted(asked) == [("sum(a)", str(NOW.timestamp())), ("sum(b)", str(NOW.timestamp()))]
    assert vectors["Requests"][0] == ({"revision": "aaaa"}, 0.5)
    assert str(vectors["ErrorRate"][1]) == "({'revision': 'bbbb'}, nan)"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": "error", "error": "parse error: unexpected end"}, "answered 400: parse error"),
        (["not", "prometheus"], "answered 400"),
        ("<html>login</html>", "answered 400"),
    ],
    ids=["a query it cannot read", "another kind of server", "a login page"],
)
async def test_a_refusal_of_prometheus_is_one_sentence(answer: Any, says: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(answer, status=400)

    async with serving("/api/v1/query", refuse) as url:
        with pytest.raises(PrometheusError, match=says):
            await query_round(url, {"Requests": "sum("}, NOW)


async def test_nobody_at_the_address_is_one_sentence() -> None:
    with pytest.raises(PrometheusError, match=r"Prometheus at http://127\.0\.0\.1:1 does not answer"):
        await query_round("http://127.0.0.1:1", {"Requests": "sum(a)"}, NOW)
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:1/v1/chat/completions"):
        await ask("http://127.0.0.1:1/v1", "guide", "Hello", max_tokens=8, timeout=1)


def completion(text: str) -> dict[str, Any]:
    """A chat completion with this answer."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


async def test_a_probe_is_a_greedy_question_that_does_not_count_as_traffic() -> None:
    seen: list[tuple[str | None, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers.get(HEADER_PROBE), await request.json()))
        return web.json_response(completion(" Paris. "))

    async with serving("/v1/chat/completions", answer, "POST") as url:
        assert await ask(f"{url}/v1", "guide", "Capital of France?", max_tokens=8, timeout=5) == " Paris. "
    message = {"role": "user", "content": "Capital of France?"}
    assert seen == [("1", {"temperature": 0, "model": "guide", "messages": [message], "max_tokens": 8})]


@pytest.mark.parametrize(
    ("verdict", "want"), [("PASS", True), ("fail.", False), (" Pass ", True)], ids=["pass", "fail", "with space"]
)
@pytest.mark.usefixtures("here")
async def test_a_judge_is_asked_with_its_token_and_read(verdict: str, want: bool) -> None:
    tokens: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        tokens.append(request.headers.get("Authorization"))
        return web.json_response(completion(verdict))

    async with serving("/v1/chat/completions", answer, "POST") as url:
        found = await judge(f"{url}/v1", "j", "Q", "A", "names the city", token="secret", timeout=5)
    assert (found, tokens) == (want, ["Bearer secret"])


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, completion("maybe"), "neither PASS nor FAIL"),
        (200, {"choices": []}, "something else than a chat completion"),
        (401, {"error": "key sk-123 is wrong"}, "answered 401"),
    ],
    ids=["unclear", "no answer", "refused"],
)
@pytest.mark.usefixtures("here")
async def test_what_is_no_verdict_is_an_error_that_repeats_nothing_secret(status: int, body: Any, says: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    async with serving("/v1/chat/completions", answer, "POST") as url:
        with pytest.raises(ModelError, match=says) as raised:
            await judge(f"{url}/v1", "j", "Q", "A", "R", token=None, timeout=5)
    assert "sk-123" not in str(raised.value)


async def test_a_password_in_a_url_is_repeated_nowhere() -> None:
    with pytest.raises(PrometheusError) as raised:
        await query_round("http://admin:hunter2@127.0.0.1:1", {"Requests": "sum(a)"}, NOW)
    with pytest.raises(ModelError) as asked:
        await ask("http://admin:hunter2@127.0.0.1:1/v1", "guide", "Hello", max_tokens=8, timeout=1)
    assert "hunter2" not in f"{raised.value} {asked.value}"


async def test_an_answer_without_end_and_one_that_leads_elsewhere_are_refused() -> None:
    async def endless(_: web.Request) -> web.Response:
        return web.Response(body=b"[" + b"1," * (1 << 20), content_type="application/json")

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    for handler, says in ((endless, "something else"), (elsewhere, "answered 307")):
        async with serving("/v1/chat/completions", handler, "POST") as url:
            with pytest.raises(ModelError, match=says) as raised:
                await ask(f"{url}/v1", "guide", "Hello", max_tokens=8, timeout=5)
        assert raised.value.refused


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
async def test_a_judge_on_the_operators_own_machine_is_asked_nothing(host: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(completion("PASS"))

    async with serving("/v1/chat/completions", answer, "POST") as url:
        port = url.rpartition(":")[2]
        with pytest.raises(ModelError, match="leads to the operator's own machine") as raised:
            await judge(f"http://{host}:{port}/v1", "j", "Q", "A", "R", token="secret", timeout=5)
    assert not raised.value.refused
    assert asked == []


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]"])
async def test_a_judge_at_the_metadata_service_of_a_cloud_is_asked_nothing(host: str) -> None:
    with pytest.raises(ModelError, match="leads to the operator's own machine"):
        await judge(f"http://{host}/v1", "j", "Q", "A", "R", token=None, timeout=5)


def test_addresses_of_the_cluster_and_of_the_world_are_outward() -> None:
    assert [outward.is_inward(one) for one in ("10.0.0.1", "192.168.1.1", "2001:db8::1", "8.8.8.8")] == [False] * 4
