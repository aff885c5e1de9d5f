"""Our class in front of a tiny ASGI application: what gets through, what it answers itself, what it counts."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tunewright_server import policy
from tunewright_server.middleware import AccessMiddleware, Message, Outcome, Receive, RequestMetrics, Scope, Send

KEY = "only-the-supervisor-knows"
SUPERVISOR = [(policy.KEY_HEADER.encode(), KEY.encode())]
QUESTION = ("POST", "/v1/chat/completions")
DENIAL = {
    "error": {
        "message": f"There is no such endpoint. This server answers {', '.join(policy.describe())}",
        "type": "NotFoundError",
        "param": None,
        "code": 404,
    }
}
JSON = [(b"content-type", b"application/json")]
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]
TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "engine died"}}\n\n'


class App:
    """Sends what it was given, and does what `then` says: nothing, raise, or wait for the client to leave."""

    def __init__(self, sends: Iterable[Message] = (), then: str = "") -> None:
        self.sends = list(sends)
        self.then = then
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            return
        while (await receive()).get("more_body"):
            pass
        for message in self.sends:
            await send(message)
        if self.then == "raise":
            raise RuntimeError("the engine died")
        if self.then == "until the client leaves":
            assert (await receive())["type"] == "http.disconnect"


class Client:
    """One request to the middleware: what it sent back, and what it counted."""

    def __init__(self, app: App) -> None:
        self.registry = CollectorRegistry()
        self.app = app
        self.middleware = AccessMiddleware(app, RequestMetrics(self.registry), KEY)
        self.sent: list[Message] = []

    async def ask(self, method: str = QUESTION[0], path: str = QUESTION[1], **scope: Any) -> None:
        """Send the request and leave when the application asks for more than the body."""
        incoming: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.request"}]

        async def receive() -> Message:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.sent.append(message)

        default = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
        await self.middleware(default | scope, receive, send)

    def answer(self) -> tuple[int, Any]:
        """Status and JSON."""
        return self.sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))

    def counted(self) -> dict[tuple[str, str], float]:
        """(outcome, source) -> how often, without zeros."""
        (family,) = (f for f in self.registry.collect() if f.name == "tunewright_requests")
        return {
            (s.labels["outcome"], s.labels["source"]): s.value
            for s in family.samples
            if s.name == "tunewright_requests_total" and s.value
        }


def start(status: int = 200, headers: Any = JSON) -> Message:
    """The head of an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, more: bool = True) -> Message:
    """A piece of its body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


END = body(b"", more=False)
SOME_ANSWER = [start(), body(b"{}", more=False)]


@pytest.mark.parametrize(("method", "path"), sorted(policy.PUBLIC))
async def test_what_is_allowed_passes_untouched(method: str, path: str) -> None:
    client = Client(App(SOME_ANSWER))
    await client.ask(method, path)
    assert len(client.app.scopes) == 1
    assert client.sent == SOME_ANSWER


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_the_supervisor_may_look_at_the_server(path: str) -> None:
    client = Client(App(SOME_ANSWER))
    await client.ask("GET", path, headers=SUPERVISOR)
    assert len(client.app.scopes) == 1
    assert client.sent == SOME_ANSWER


@pytest.mark.parametrize(("method", "path"), sorted(policy.OWN))
@pytest.mark.parametrize(
    ("key", "headers"),
    [(None, []), (None, [(b"x-tunewright-key", b"guessed")]), ("", [(b"x-tunewright-key", b"")])],
    ids=["no key", "another key", "a server without a key"],
)
async def test_nobody_else_may_look_at_the_server(method: str, path: str, key: str | None, headers: Any) -> None:
    client = Client(App(SOME_ANSWER))
    if key is not None:
        client.middleware = AccessMiddleware(client.app, RequestMetrics(CollectorRegistry()), key)
    await client.ask(method, path, headers=headers)
    assert client.answer() == (404, DENIAL)
    assert client.app.scopes == []


TRICKS = [
    ("POST", "/health"),
    ("HEAD", "/health"),
    ("get", "/health"),
    ("GET", "/v1/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/"),
    ("POST", "//v1/chat/completions"),
    ("POST", "/v1/chat//completions"),
    ("POST", "/v1/./chat/completions"),
    ("POST", "/v1/chat/%63ompletions"),
    ("POST", "/V1/chat/completions"),
    ("POST", "/v1/chat/completions;x=1"),
    ("POST", "/v1/chat/completions\x00"),
    ("POST", "http://x/v1/chat/completions"),
    ("POST", "/metrics"),
    ("GET", "/metrics/"),
    ("GET", "/metrics/x"),
    ("POST", policy.POLICY_PATH),
    ("GET", "/"),
    ("GET", "*"),
    ("GET", ""),
]


@pytest.mark.parametrize(("method", "path"), TRICKS)
async def test_everything_else_does_not_exist(method: str, path: str) -> None:
    client = Client(App(SOME_ANSWER))
    await client.ask(method, path)
    assert client.answer() == (404, DENIAL)
    assert client.app.scopes == []
    assert client.counted() == {}


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT"]), st.text())
def test_only_the_list_gets_through(method: str, path: str) -> None:
    client = Client(App(SOME_ANSWER))
    asyncio.run(client.ask(method, path, raw_path=path.encode(errors="surrogatepass")))
    assert bool(client.app.scopes) == ((method, path) in policy.PUBLIC)


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({"raw_path": None}, id="a server that does not tell the path as it was written"),
        pytest.param({"raw_path": b"/v1/%63hat/completions"}, id="a decoded path that looks right"),
        pytest.param({"root_path": "/v1"}, id="a root path, by which another path would be routed"),
    ],
)
async def test_what_is_written_counts_not_what_is_decoded(scope: dict[str, Any]) -> None:
    client = Client(App(SOME_ANSWER))
    await client.ask(**scope)
    assert client.answer() == (404, DENIAL)


async def test_the_policy_is_told() -> None:
    client = Client(App())
    await client.ask("GET", policy.POLICY_PATH, headers=SUPERVISOR)
    assert client.answer() == (200, {"digest": policy.digest()})


def test_the_digest_follows_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = policy.digest()
    assert before.startswith("sha256:")
    monkeypatch.setattr(policy, "PUBLIC", policy.PUBLIC | {("POST", "/tokenize")})
    assert policy.digest() != before


async def test_startup_and_shutdown_pass() -> None:
    client = Client(App())
    await client.ask(type="lifespan")
    assert [scope["type"] for scope in client.app.scopes] == ["lifespan"]


async def test_a_websocket_is_answered_404_where_the_server_can() -> None:
    client = Client(App())
    await client.ask(type="websocket", extensions={"websocket.http.response": {}})
    assert [message["type"] for message in client.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert client.answer() == (404, DENIAL)


@pytest.mark.parametrize("extensions", [{}, None])
async def test_a_websocket_is_refused_where_the_server_knows_no_more(extensions: Any) -> None:
    client = Client(App())
    await client.ask(type="websocket", extensions=extensions)
    assert client.sent == [{"type": "websocket.close", "code": 1000}]
    assert client.app.scopes == []


ENDS = [
    pytest.param([start(), body(b"{}", more=False)], "", "Completed", id="an answer in one piece"),
    pytest.param([start(), body(b"{"), body(b"}"), END], "", "Completed", id="an answer in pieces"),
    pytest.param([start(200, STREAM), body(TOKEN), body(DONE), END], "", "Completed", id="a stream to its end"),
    pytest.param([start(200, STREAM), body(TOKEN + DONE, more=False)], "", "Completed", id="a stream in one piece"),
    pytest.param(
        [start(200, STREAM), body(TOKEN), body(b"data: [DO"), body(b"NE]\n"), body(b"\n"), END],
        "",
        "Completed",
        id="an end that is cut in pieces",
    ),
    pytest.param(
        [start(200, STREAM), body(TOKEN), body(DONE)],
        "until the client leaves",
        "Completed",
        id="a client that hangs up when it has everything",
    ),
    pytest.param([start(400), body(b"{}", more=False)], "", "ClientError", id="a wrong question"),
    pytest.param([start(500), body(b"{}", more=False)], "", "ServerError", id="a failing engine"),
    pytest.param([start(503), body(b"{}", more=False)], "raise", "ServerError", id="an engine that is gone"),
    pytest.param([], "raise", "ServerError", id="an exception before the answer"),
    pytest.param([], "", "ServerError", id="no answer at all"),
    pytest.param([start(200, STREAM), body(TOKEN), END], "", "Broken", id="a stream without its end"),
    pytest.param([start(200, STREAM), body(TOKEN)], "raise", "Broken", id="an exception in a stream"),
    pytest.param([start(200, STREAM), body(TOKEN), body(ERROR), body(DONE), END], "", "Broken", id="an error event"),
    pytest.param(
        [start(200, STREAM), body(TOKEN + b'data: {"er'), body(b'ror":{}}\n\n'), body(DONE), END],
        "",
        "Broken",
        id="an error event that is cut in pieces",
    ),
    pytest.param(
        [start(200, STREAM), body(ERROR)],
        "until the client leaves",
        "Broken",
        id="a client that leaves because of the error",
    ),
    pytest.param([start(), body(b"{")], "raise", "Broken", id="half an answer"),
    pytest.param(
        [start(200, STREAM), body(TOKEN)], "until the client leaves", "ClientClosed", id="a client that leaves a stream"
    ),
    pytest.param([], "until the client leaves", "ClientClosed", id="a client that does not wait for the answer"),
    pytest.param(
        [start(200, STREAM), body(b'data: {"text":"data: {\\"error\\" data: [DONE]"}\n\n'), body(DONE), END],
        "",
        "Completed",
        id="generated text that looks like an error",
    ),
    pytest.param(
        [start(200, STREAM), body(b'data: {"text":"data: [DONE]"}\n\n'), END],
        "",
        "Broken",
        id="generated text that looks like an end",
    ),
]


@pytest.mark.parametrize("source", ["client", "probe"])
@pytest.mark.parametrize(("sends", "then", "outcome"), ENDS)
async def test_requests_are_counted_by_how_they_end(sends: list[Message], then: str, outcome: str, source: str) -> None:
    client = Client(App(sends, then))
    headers = [(b"host", b"x"), (b"x-tunewright-probe", b"1" if source == "probe" else b"0")]
    try:
        await client.ask(headers=headers)
    except RuntimeError:
        assert then == "raise"
    assert client.sent == sends
    assert client.counted() == {(outcome, source): 1}
    assert client.registry.get_sample_value("tunewright_requests_in_flight", {"source": source}) == 0


async def test_an_answer_that_a_client_never_saw_is_not_completed() -> None:
    """vLLM answers a client that left with an empty success."""

    class Late(App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            for message in SOME_ANSWER:
                await send(message)

    client = Client(Late())
    await client.ask()
    assert client.counted() == {("ClientClosed", "client"): 1}


async def test_a_running_request_is_in_flight() -> None:
    seen: list[float | None] = []

    class Looking(App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(client.registry.get_sample_value("tunewright_requests_in_flight", {"source": "client"}))

    client = Client(Looking())
    await client.ask()
    assert seen == [1]


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models"])
async def test_looking_at_the_server_is_no_question_to_the_model(path: str) -> None:
    client = Client(App(SOME_ANSWER))
    await client.ask("GET", path, headers=SUPERVISOR)
    assert client.counted() == {}


def test_every_pair_of_labels_is_there_from_the_start() -> None:
    registry = CollectorRegistry()
    RequestMetrics(registry)
    zero = {
        (outcome, source): registry.get_sample_value(
            "tunewright_requests_total", {"outcome": outcome, "source": source}
        )
        for outcome in Outcome
        for source in ("client", "probe")
    }
    assert set(zero.values()) == {0.0}


@given(st.lists(st.integers(0, 200)))
def test_how_a_stream_is_cut_does_not_matter(cuts: list[int]) -> None:
    whole = TOKEN * 3 + DONE
    broken = TOKEN + ERROR + DONE
    for data, outcome in ((whole, "Completed"), (broken, "Broken"), (TOKEN * 3, "Broken")):
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [body(data[a:b]) for a, b in itertools.pairwise(edges)]
        client = Client(App([start(200, STREAM), *pieces, END]))
        asyncio.run(client.ask())
        assert client.counted() == {(outcome, "client"): 1}
