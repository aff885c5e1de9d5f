"""The loop of an object: what is written, told and retried."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.training import CONFIG
from tunewright_operator.handlers.loop import BACKOFF_MAX, Loop, backoff
from tunewright_operator.handlers.wakeups import Wakeups
from tunewright_operator.kube.errors import Conflict, Forbidden, Invalid, NotFound, Transient
from tunewright_operator.kube.protocol import Kube
from tunewright_operator.metrics import Metrics
from tunewright_operator.reconcile.result import Check, Children, Event, Result

Object = dict[str, Any]

KEY = ("FineTuneJob", "team", "guide")
TIME = "2026-01-02T03:04:05Z"


def status(kind: str = "Complete", reason: str = "Registered", verdict: str = "True") -> Object:
    """A status with one condition."""
    condition = {"type": kind, "status": verdict, "reason": reason, "message": f"{reason}.", "lastTransitionTime": TIME}
    return {"observedGeneration": 1, "conditions": [condition], "message": f"{reason}."}


@dataclass
class World:
    """A reconcile function that answers from a list, and what the loop does with the answers."""

    answers: list[Result | Exception]
    stored: Object = field(default_factory=lambda: {"observedGeneration": -1})
    seen: list[Object] = field(default_factory=list)
    checks: list[Any] = field(default_factory=list)  # what each turn was told about a check
    written: list[Object] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refuse: Exception | None = None
    record: Object | None = None  # a status that the reconcile writes on the way

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        world = self

        class Api:
            async def patch_status(self, manifest: Object, status: Object) -> Object:
                if world.refuse:
                    raise world.refuse
                world.written.append(status)
                return manifest

        self.loop = Loop(
            key=KEY,
            kube=Api(),  # type: ignore[arg-type]
            config=CONFIG,
            metrics=Metrics(self.registry),
            reconcile=self.reconcile,
            read=lambda: {"metadata": {"name": "guide", "generation": 1}, "status": self.stored},
            children=Children,
            post=self.events.append,
        )

    async def reconcile(self, kube: Kube, config: Any, obj: Object, children: Children, now: datetime) -> Result:
        """The next answer."""
        self.seen.append(obj["status"])
        self.checks.append(children.check)
        if self.record:
            self.written.append(self.record)
            obj["status"], self.record = self.record, None
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def value(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.registry.get_sample_value(name, labels) or 0


async def test_a_changed_status_is_written_and_told() -> None:
    world = World([Result(status(), requeue_after=7)])
    assert await world.loop.turn() == 7
    assert world.written == [status()]
    assert world.events == [Event("Normal", "Registered", "Registered.")]
    assert world.value("tunewright_objects", kind="FineTuneJob", state="NotReady") == 1


async def test_an_equal_status_is_not_written() -> None:
    world = World([Result(status())], stored=status())
    assert await world.loop.turn() is None
    assert world.written == []
    assert world.events == []


async def test_the_last_written_status_counts_not_the_one_of_a_watch_that_lags() -> None:
    world = World([Result(status()), Result(status())])
    await world.loop.turn()
    await world.loop.turn()
    assert world.seen == [{"observedGeneration": -1}, status()]
    assert len(world.written) == 1


async def test_nothing_is_told_about_a_status_that_could_not_be_written() -> None:
    world = World([Result(status()), Result(status())], refuse=Transient("busy", 503))
    assert await world.loop.turn() == pytest.approx(1, rel=0.3)
    assert world.events == []
    world.refuse = None
    await world.loop.turn()
    assert len(world.events) == 1


@pytest.mark.parametrize(
    "error", [Transient("busy"), Conflict("changed"), Invalid("no"), Forbidden("no"), NotFound("gone"), KeyError("bug")]
)
async def test_no_error_ends_the_loop(error: Exception) -> None:
    world = World([error, Result(status())])
    assert await world.loop.turn() == pytest.approx(1, rel=0.3)
    assert await world.loop.turn() is None
    assert world.value("tunewright_reconcile_errors_total", kind="FineTuneJob", error=type(error).__name__) == 1
    assert world.value("tunewright_reconcile_seconds_count", kind="FineTuneJob") == 2


async def test_the_delay_grows_with_every_failure_and_starts_over_after_a_success() -> None:
    world = World([Transient("busy")] * 3 + [Result(status())] + [Transient("busy")])
    delays = [await world.loop.turn() for _ in range(5)]
    assert delays == [
        pytest.approx(1, rel=0.21),
        pytest.approx(2, rel=0.21),
        pytest.approx(4, rel=0.21),
        None,
        pytest.approx(1, rel=0.21),
    ]


def test_the_delay_is_bounded() -> None:
    assert backoff(1000) <= BACKOFF_MAX * 1.2


async def test_the_loop_sleeps_until_it_is_woken_and_ends_when_it_is_stopped() -> None:
    world, wakeups, stopped = World([Result(status())] * 3), Wakeups(), asyncio.Event()
    with wakeups.listen(KEY) as wake:
        task = asyncio.create_task(world.loop.run(wake, stopped.is_set))
        await asyncio.sleep(0.01)
        assert len(world.seen) == 1
        wakeups.wake(("FineTuneJob", "team", "another"))
        await asyncio.sleep(0.01)
        assert len(world.seen) == 1
        wakeups.wake(KEY)
        await asyncio.sleep(0.1)
        assert len(world.seen) == 2
        stopped.set()
        wake.set()
        await asyncio.wait_for(task, 1)
    assert world.value("tunewright_objects", kind="FineTuneJob", state="NotReady") == 0, "forgotten with its loop"


async def test_a_change_during_a_reconcile_is_not_lost() -> None:
    world, wake, stopped = World([Result(status())] * 2), asyncio.Event(), asyncio.Event()
    inner = world.loop.reconcile

    async def changing(*args: Any) -> Result:
        wake.set()
        if world.seen:
            stopped.set()
        return await inner(*args)

    world.loop.reconcile = changing
    await asyncio.wait_for(world.loop.run(wake, stopped.is_set), 2)
    assert len(world.seen) == 2


async def test_finished_stages_and_lost_attempts_are_counted_once() -> None:
    stage = {"stage": "train", "started": "2026-01-02T03:00:00Z", "finished": "2026-01-02T03:01:00Z"}
    restart = {"attempt": 1, "time": TIME, "cause": "Killed"}
    new = status() | {"stages": [stage], "restarts": [restart], "stage": "Complete"}
    world = World([Result(new), Result(new | {"message": "again"})])
    await world.loop.turn()
    await world.loop.turn()
    assert world.value("tunewright_stage_seconds_sum", stage="train") == 60
    assert world.value("tunewright_stage_seconds_count", stage="train") == 1
    assert world.value("tunewright_training_restarts_total", cause="Killed") == 1
    assert world.value("tunewright_objects", kind="FineTuneJob", state="Complete") == 1


@pytest.mark.parametrize(
    ("kind", "verdict", "want"),
    [
        ("Failed", "True", ["Warning"]),
        ("Accepted", "False", ["Warning"]),
        ("Accepted", "True", ["Normal"]),
        ("Reconciling", "True", ["Normal"]),
        ("Stalled", "True", []),
    ],
)
async def test_events_are_warnings_where_the_condition_is_bad_news(kind: str, verdict: str, want: list[str]) -> None:
    world = World([Result(status(kind, "Why", verdict))])
    await world.loop.turn()
    assert [event.type for event in world.events] == want


async def test_a_new_message_alone_is_no_event() -> None:
    old, new = status("Reconciling", "Queued"), status("Reconciling", "Queued")
    new["conditions"][0]["message"] = "still queued"
    world = World([Result(new)], stored=old)
    await world.loop.turn()
    assert len(world.written) == 1
    assert world.events == []


async def test_a_status_that_was_written_on_the_way_counts_whatever_fails_after_it() -> None:
    world = World([Transient("the apiserver is gone"), Result(status())], record=status())
    await world.loop.turn()
    assert world.events == [Event("Normal", "Registered", "Registered.")]
    await world.loop.turn()
    assert world.seen == [{"observedGeneration": -1}, status()]
    assert world.written == [status()], "once"


# --- a check beside the turns -----------------------------------------------------------------


class Look:
    """A check that finds something when the test says so."""

    def __init__(self, subject: str = "b at 10 %") -> None:
        self.found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.check = Check(subject, self._make)
        self.cancelled = self.begun = 0

    async def _make(self) -> Any:
        self.begun += 1
        try:
            return await asyncio.shield(self.found)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def asked(self) -> Result:
        """A turn that asks for it."""
        return Result(status(), check=self.check)


async def until(true: Callable[[], bool]) -> None:
    """Let tasks run until something is true."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what tasks do sets no event
            await asyncio.sleep(0)


async def test_turns_go_on_while_a_check_is_made_and_its_end_wakes_the_loop() -> None:
    look = Look()
    world = World([look.asked(), look.asked(), Result(status()), Result(status())])
    wake, stopped = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(world.loop.run(wake, stopped.is_set))
    await until(lambda: look.begun == 1)
    wake.set()
    await until(lambda: len(world.seen) == 2)
    assert world.checks == [None, None]
    look.found.set_result("the finding")
    await until(lambda: len(world.seen) == 3)
    assert world.checks == [None, None, "the finding"]
    wake.set()
    await until(lambda: len(world.seen) == 4)
    assert world.checks[-1] is None, "it is decided about once"
    assert (look.begun, look.cancelled) == (1, 0)
    stopped.set()
    wake.set()
    await running


async def test_a_check_that_no_turn_asks_for_any_more_is_cancelled() -> None:
    look, other = Look(), Look("b at 50 %")
    world = World([look.asked(), other.asked(), Result(status())])
    await world.loop.turn()
    await until(lambda: look.begun == 1)
    await world.loop.turn()
    await until(lambda: (look.cancelled, other.begun) == (1, 1))
    await world.loop.turn()
    await until(lambda: other.cancelled == 1)


async def test_a_check_ends_with_its_loop() -> None:
    look = Look()
    world = World([look.asked()])
    running = asyncio.create_task(world.loop.run(asyncio.Event(), lambda: False))
    await until(lambda: look.begun == 1)
    running.cancel()
    await until(lambda: look.cancelled == 1)


async def test_what_a_check_found_is_kept_until_a_turn_succeeds() -> None:
    look = Look()
    world = World([look.asked(), Transient("busy"), Result(status())])
    await world.loop.turn()
    look.found.set_result("the finding")
    await until(lambda: look.begun == 1)
    await asyncio.sleep(0)
    await world.loop.turn()
    await world.loop.turn()
    assert world.checks == [None, "the finding", "the finding"]


async def test_a_check_that_cannot_be_made_is_made_anew() -> None:
    look, again = Look(), Look()
    world = World([look.asked(), again.asked()])
    await world.loop.turn()
    look.found.set_exception(Transient("no Secret can be read"))
    await until(lambda: look.begun == 1)
    await asyncio.sleep(0)
    assert await world.loop.turn() == pytest.approx(1, rel=0.3)
    await world.loop.turn()
    await until(lambda: again.begun == 1)
