"""The harness itself, without a cluster: scripted servers, what their clients see, and laws that notice a breach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.rollouts.behaviour import Behaviour, Shares
from tests.rollouts.laws import Weights, check_laws, shares_of
from tests.rollouts.load import Answer, Load, ask
from tests.rollouts.model_server import ModelServer
from tunewright_api.names import HEADER_PROBE, HEADER_REVISION
from tunewright_api.server_config import ServerConfig, ServerIdentity, ServerModel

ADDRESS = "127.9.9.9"
PORT, HEALTH = 18000, 18001
URL = f"http://{ADDRESS}:{PORT}"
CONFIG = ServerConfig(
    model=ServerModel(artifact="/a", digest="sha256:" + "a" * 64, served_name="guide"),
    identity=ServerIdentity(namespace="team", service="guide", version="guide-v1", revision="abc"),
    port=PORT,
    health_port=HEALTH,
)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    running = ModelServer(ADDRESS, CONFIG, Behaviour(answer="Paris it is"))
    await running.start()
    await running.load()
    yield running
    await running.stop()


@pytest.fixture
async def question(server: ModelServer) -> AsyncIterator[Callable[..., Awaitable[Answer]]]:
    async with aiohttp.ClientSession() as session:

        async def put(prompt: str = "Where?", **how: Any) -> Answer:
            return await ask(session, URL, "guide.example", "guide", prompt, **how)

        yield put


Question = Callable[..., Awaitable[Answer]]


async def metrics() -> dict[str, float]:
    """Samples of the health port that are not 0, without the labels that all of them have."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{ADDRESS}:{HEALTH}/metrics") as response:
        text = await response.text()
    common = 'inference_service="guide",model_version="guide-v1",namespace="team",revision="abc"'
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    assert all(sorted(common.split(","))[0] in name for name, _, _ in samples)
    cleaned = {name: float(value) for name, _, value in samples}
    return {_without(name, common): value for name, value in cleaned.items() if value}


def _without(name: str, common: str) -> str:
    metric, _, labels = name.partition("{")
    left = [label for label in labels.rstrip("}").split(",") if label not in common.split(",")]
    return metric + ("{" + ",".join(left) + "}" if left else "")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_comes_back_and_tells_who_gave_it(question: Question, path: str, stream: bool) -> None:
    answer = await question(path=path, stream=stream)
    assert (answer.good, answer.text, answer.version, answer.revision) == (True, "Paris it is", "guide-v1", "abc")


async def test_answers_come_from_the_table(server: ModelServer, question: Question) -> None:
    server.behaviour.answers["2 + 2?"] = "4"
    assert (await question("2 + 2?")).text == "4"


async def test_metrics_tell_users_from_probes(question: Question) -> None:
    await question()
    await question(headers={HEADER_PROBE: "1"})
    seen = await metrics()
    assert seen['tunewright_requests_total{outcome="Completed",source="client"}'] == 1
    assert seen['tunewright_requests_total{outcome="Completed",source="probe"}'] == 1
    assert seen['vllm:request_success_total{engine="0",finished_reason="stop",model_name="guide"}'] == 2
    assert seen['vllm:generation_tokens_total{engine="0",model_name="guide"}'] == 6
    assert seen['vllm:time_to_first_token_seconds_count{engine="0",model_name="guide"}'] == 2
    assert seen['vllm:request_time_per_output_token_seconds_count{engine="0",model_name="guide"}'] == 2


async def test_an_error_is_a_500_and_counted(server: ModelServer, question: Question) -> None:
    server.behaviour.errors = 0.5
    assert [(await question()).status for _ in range(4)] == [200, 500, 200, 500]
    assert (await metrics())['tunewright_requests_total{outcome="ServerError",source="client"}'] == 2


async def test_a_broken_stream_begins_well_and_has_no_end(server: ModelServer, question: Question) -> None:
    server.behaviour.broken = 1
    answer = await question()
    assert (answer.status, answer.complete, answer.good) == (200, False, False)
    assert answer.text
    assert (await metrics())['tunewright_requests_total{outcome="Broken",source="client"}'] == 1


async def test_a_wrong_request_is_the_clients_error(question: Question) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await ask(session, URL, "guide.example", "another", "Where?")
    assert answer.status == 400
    assert (await metrics())['tunewright_requests_total{outcome="ClientError",source="client"}'] == 1


async def test_a_server_waits_for_its_first_samples() -> None:
    server = ModelServer(ADDRESS, CONFIG, Behaviour(), scrapes=2)
    await server.start()
    await server.load()
    try:
        assert not server.ready
        await metrics()
        assert not server.ready
        await metrics()
        assert server.ready
    finally:
        await server.stop()


async def test_load_keeps_its_rate_and_tells_what_failed(server: ModelServer) -> None:
    server.behaviour.errors = 0.25
    load = Load(URL, "guide.example", "guide", rate=1000)
    running = load.run()

    async def end() -> None:
        while len(load.answers) < 40:  # noqa: ASYNC110 (a load tells nobody)
            await asyncio.sleep(0)
        load.stop()

    await asyncio.gather(running, end())
    assert len(load.failures()) == len(load.answers) // 4
    assert load.versions() == {"guide-v1": len(load.answers) - len(load.failures())}


@pytest.mark.parametrize(
    ("share", "want"),
    [(0, []), (1, [0, 1, 2, 3, 4, 5, 6, 7]), (0.25, [3, 7]), (0.5, [1, 3, 5, 7])],
)
def test_shares_are_exact(share: float, want: list[int]) -> None:
    shares = Shares()
    assert [number for number in range(8) if shares.takes("errors", share)] == want


def history(*shares: dict[str, int]) -> list[Weights]:
    return [Weights(float(at), one) for at, one in enumerate(shares)]


GOOD = {
    "promoted": [{"a": 100}, {"a": 80, "b": 20}, {"a": 50, "b": 50}, {"b": 100}],
    "undone": [{"a": 100}, {"a": 80, "b": 20}, {"a": 100}],
    "undone at the second step": [{"a": 100}, {"a": 80, "b": 20}, {"a": 50, "b": 50}, {"a": 100}],
    "replaced": [{"a": 100}, {"a": 80, "b": 20}, {"a": 100}, {"a": 80, "c": 20}],
    "at once": [{"a": 100}, {"b": 100}],
}
BAD = {
    "not everything": [{"a": 100}, {"a": 80, "b": 10}],
    "too large a step": [{"a": 100}, {"a": 50, "b": 50}],
    "two steps": [{"a": 100}, {"a": 80, "b": 20}, {"a": 10, "b": 90}],
    "half a way back": [{"a": 50, "b": 50}, {"a": 80, "b": 20}],
    "three revisions": [{"a": 60, "b": 20, "c": 20}],
}


@pytest.mark.parametrize("shares", GOOD.values(), ids=GOOD)
def test_laws_let_a_rollout_pass(shares: list[dict[str, int]]) -> None:
    check_laws(history(*shares), [20, 50])


@pytest.mark.parametrize("shares", BAD.values(), ids=BAD)
def test_laws_notice(shares: list[dict[str, int]]) -> None:
    with pytest.raises(AssertionError):
        check_laws(history(*shares), [20, 50])


def test_weights_of_a_virtual_service() -> None:
    route = {
        "kind": "VirtualService",
        "spec": {
            "http": [
                {
                    "match": [{"headers": {HEADER_REVISION: {"exact": "b"}}}],
                    "route": [{"destination": {"subset": "b"}, "weight": 100}],
                },
                {
                    "route": [
                        {"destination": {"subset": "a"}, "weight": 80},
                        {"destination": {"subset": "b"}, "weight": 20},
                    ]
                },
            ]
        },
    }
    assert shares_of(route, "guide") == {"a": 80, "b": 20}


def test_weights_of_an_http_route() -> None:
    backends = [{"name": "guide-a", "weight": 100}, {"name": "guide-b", "weight": 0}]
    assert shares_of({"kind": "HTTPRoute", "spec": {"rules": [{"backendRefs": backends}]}}, "guide") == {"a": 100}
