"""The canary's demo: what it reads from a service's status, and the load that it puts on it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from aiohttp import web

from e2e.demo import canary, view
from e2e.demo.load import Exchange, Load, summarize
from e2e.demo.timeline import Entry, Timeline, entries

Object = dict[str, Any]
Objects = list[Object]
Answer = tuple[int, list[bytes]]

STARTED = {
    "time": "2026-01-02T03:04:05Z",
    "decision": "Started",
    "revision": "bbb",
    "version": "guide-v2",
    "weight": 0,
    "reason": "NewRevision",
    "message": "the pods of guide-v2 start",
}
HELD = STARTED | {"time": "2026-01-02T03:05:15Z", "decision": "Held", "weight": 10, "reason": "TooFewRequests"}
ADVANCED = STARTED | {"time": "2026-01-02T03:05:25Z", "decision": "Advanced", "weight": 30, "reason": "Passed"}
CHECK = {
    "time": "2026-01-02T03:05:25Z",
    "revision": "bbb",
    "weight": 10,
    "windowSeconds": 10,
    "requests": 7,
    "stableRequests": 60,
    "verdict": "Pass",
    "reason": "Passed",
    "metrics": [
        {"name": "ErrorRate", "candidate": 0, "thresholdRange": {"max": 0.5}, "verdict": "Pass"},
        {"name": "TTFTP95", "candidate": 412.34, "thresholdRange": {"min": 1, "max": 5000}, "verdict": "Pass"},
        {"name": "TPOTP95", "verdict": "Inconclusive"},
    ],
    "probes": {"passed": 3, "total": 3, "verdict": "Pass"},
}


def service(**status: Any) -> Object:
    return {"metadata": {"generation": 1}, "status": status}


# --- the timeline -----------------------------------------------------------------------------


def test_a_check_stands_before_the_decision_that_it_led_to() -> None:
    seen = sorted(entries(service(history=[ADVANCED, STARTED], analysis=CHECK)))
    assert [entry.line for entry in seen] == [
        "03:04:05  Started      guide-v2     0 %  NewRevision: the pods of guide-v2 start",
        "03:05:25    Pass       7 requests in 10 s · ErrorRate 0 % (at most 0.5) · "
        "TTFTP95 412 ms (at least 1, at most 5000) · TPOTP95 no data · 3 of 3 answers right",
        "03:05:25  Advanced     guide-v2    30 %  Passed",
    ]


def test_each_thing_is_told_once_though_the_history_forgets() -> None:
    timeline = Timeline()
    states = [
        service(),
        service(history=[STARTED]),
        service(history=[HELD, STARTED]),
        service(history=[HELD | {"count": 2, "time": "2026-01-02T03:05:20Z"}, STARTED]),
        service(history=[ADVANCED], analysis=CHECK),
        service(history=[ADVANCED], analysis=CHECK),
    ]
    told = [[entry.text.split()[0:2] for entry in timeline.see(state)] for state in states]
    assert told == [
        [],
        [["Started", "guide-v2"]],
        [["Held", "guide-v2"]],
        [["Held", "x2"]],
        [["Pass", "7"], ["Advanced", "guide-v2"]],
        [],
    ]


def test_entries_are_ordered_by_time() -> None:
    assert sorted([Entry("2", 1, "b"), Entry("1", 2, "c"), Entry("1", 1, "d")])[0].text == "d"


# --- the outcome ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ({}, ""),
        ({"stable": {"version": "guide-v1"}}, ""),
        ({"stable": {"version": "guide-v1"}, "candidate": {"version": "guide-v2"}}, ""),
        ({"stable": {"version": "guide-v2"}}, "promoted"),
        ({"stable": {"version": "guide-v1"}, "rejected": {"version": "guide-v2"}}, "rolled back"),
        ({"stable": {"version": "guide-v1"}, "rejected": {"version": "guide-v3"}}, ""),
        (
            {"stable": {"version": "guide-v1"}, "rejected": {"version": "guide-v2"}, "candidate": {"version": "x"}},
            "",
        ),
    ],
    ids=["nothing yet", "not begun", "on its way", "promoted", "rolled back", "another one was", "tried again"],
)
def test_a_rollout_has_ended_when_its_version_is_stable_or_rejected(status: Object, outcome: str) -> None:
    assert canary.outcome({"status": status}, "guide-v2") == outcome


@pytest.mark.parametrize(
    ("status", "fresh"),
    [
        ({"stable": {"version": "guide-v1"}}, True),
        ({"stable": {"version": "guide-v2"}, "history": [ADVANCED]}, False),
        ({"stable": {"version": "guide-v1"}, "history": [ADVANCED]}, False),
        ({"stable": {"version": "guide-v1"}, "candidate": {"version": "guide-v2"}}, False),
        ({}, False),
    ],
    ids=["as the quickstart left it", "promoted", "rolled back", "on its way", "not seen yet"],
)
def test_the_canary_begins_with_a_service_that_had_no_rollout(status: Object, fresh: bool) -> None:
    assert canary.is_fresh({"status": status}) is fresh


class FakeKubectl:
    """Stores ModelVersions and applies merge patches of spec."""

    def __init__(self, aliases: dict[str, list[str]], model: str = "guide") -> None:
        self.versions: Objects = [
            {"metadata": {"name": name}, "spec": {"modelName": model, "aliases": given}}
            for name, given in aliases.items()
        ]
        self.patched: list[str] = []

    def as_user(self, user: str) -> "FakeKubectl":
        return self

    def list(self, kind: str, namespace: str) -> Objects:
        return self.versions

    def run(self, verb: str, kind: str, name: str, *arguments: str) -> str:
        (version,) = [one for one in self.versions if one["metadata"]["name"] == name]
        version["spec"] |= yaml.safe_load(arguments[-1])["spec"]
        self.patched.append(name)
        return ""

    @property
    def aliases(self) -> Object:
        return {one["metadata"]["name"]: one["spec"]["aliases"] for one in self.versions}


def test_the_alias_moves_and_other_aliases_stay() -> None:
    kubectl = FakeKubectl({"guide-v1": ["production", "oldest"], "guide-v2": []})
    for _ in range(2):
        canary.move_alias(kubectl, "guide-v2")  # type: ignore[arg-type]
    assert kubectl.aliases == {"guide-v1": ["oldest"], "guide-v2": ["production"]}
    assert kubectl.patched == ["guide-v1", "guide-v2"]


def test_versions_of_other_models_keep_their_aliases() -> None:
    kubectl = FakeKubectl({"other-v1": ["production"]}, model="other")
    canary.move_alias(kubectl, "guide-v2")  # type: ignore[arg-type]
    assert kubectl.patched == []


def test_the_approval_names_version_and_digest() -> None:
    text = canary.approval("guide-v2", "sha256:" + "a" * 64)
    assert "name: guide-v2" in text
    assert "digest: sha256:aaa" in text


# --- the load ---------------------------------------------------------------------------------

EVENT = b'data: {"choices": [{"delta": {"content": "yes"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "the engine died"}}\n\n'


@contextlib.contextmanager
def model_server(*answers: Answer) -> Iterator[tuple[str, list[Object]]]:
    """A server that gives these answers (status, events) in turn, the last one again and again; the requests it got."""
    requests: list[Object] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        status, events = answers[min(len(requests), len(answers) - 1)]
        requests.append({"host": request.host, **await request.json()})
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for event in events:
            await response.write(event)
        if status == 200 and events[-1:] not in ([DONE], [ERROR]):
            assert request.transport is not None
            request.transport.abort()  # as a server does that is killed
        return response

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}", requests
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def failures(*answers: Answer) -> list[str]:
    with model_server(*answers, (200, [EVENT, DONE])) as (url, _), Load(url, "h", "m", ["?"], clients=1) as load:
        load.wait_for(len(answers) + 1)
    return [one.failure for one in load.exchanges[: len(answers)]]


def test_every_prompt_is_asked_in_turn_under_the_services_own_name() -> None:
    with (
        model_server((200, [EVENT, DONE])) as (url, requests),
        Load(url, "guide.example.com", "guide", ["a", "b"], clients=2, max_tokens=4) as load,
    ):
        load.wait_for(10)
    assert len(load.exchanges) == len(requests) >= 10
    assert not any(one.failure for one in load.exchanges)
    assert all(one.first_token is not None and one.first_token <= one.seconds for one in load.exchanges)
    assert {one["messages"][0]["content"] for one in requests} == {"a", "b"}
    assert {(one["host"], one["model"], one["max_tokens"], one["stream"]) for one in requests} == {
        ("guide.example.com", "guide", 4, True)
    }


def test_what_is_no_whole_answer_is_a_failure() -> None:
    said = failures((503, [b"no healthy upstream"]), (200, [EVENT]), (200, [EVENT, ERROR]), (404, []))
    assert said[0] == "503: no healthy upstream"
    assert said[1].startswith("ClientPayloadError")
    assert "the engine died" in said[2]
    assert said[3] == "404: "


def test_nobody_there_is_a_failure() -> None:
    with Load("http://127.0.0.1:9", "h", "m", ["?"], clients=1) as load:
        load.wait_for(1)
    assert load.exchanges[0].failure.startswith("ClientConnectorError")


def test_waiting_for_requests_ends_with_what_is_watched_meanwhile() -> None:
    def dead() -> None:
        raise RuntimeError("the pod is gone")

    with Load("http://127.0.0.1:9", "h", "m", ["?"], clients=1) as load, pytest.raises(RuntimeError, match="gone"):
        load.wait_for(10**9, alive=dead)


def test_the_figures_of_a_load() -> None:
    exchanges = [Exchange(sent=100 + n, seconds=2, first_token=n / 100) for n in range(1, 101)]
    exchanges.append(Exchange(sent=150, seconds=1, failure="503: gone"))
    summary = summarize(exchanges)
    assert (summary.requests, summary.failures, summary.seconds) == (101, ("503: gone",), 101)
    assert (summary.first_token_p50, summary.first_token_p95) == (0.5, 0.95)
    assert view.load_line(summary) == (
        "Of 101 requests in 101 s 1 failed, the first one with: 503: gone; first token after 0.50 s (p50), 0.95 s (p95)"
    )
    assert "none failed" in view.load_line(summarize(exchanges[:-1]))
    assert summarize([]).requests == 0
