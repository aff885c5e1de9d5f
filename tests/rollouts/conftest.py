"""Scenarios that run side by side: each is a test function with a `stage`, all share one arena.

A rollout takes its time, whatever the machine does: its checks are seconds apart. So every selected function that is
marked `scenario` starts as soon as the arena stands, in a thread of its own, and a test only waits for its result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rollouts.arena import Arena, running_arena
from tests.rollouts.stage import Stage

TEAM = "team"
# Some at a time: the machine has to keep up with the load of all of them.
WORKERS = 8


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scenario(service, alone): runs beside the others on the InferenceService of this name; `alone`: in a "
        "namespace of its own name, which no operator watches until the scenario starts one",
    )


class Runner:
    """Runs the scenarios among `items`."""

    def __init__(self, arena: Arena, items: list[pytest.Function]) -> None:
        self._arena = arena
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="scenario")
        self._ended = threading.Event()
        self.stages = {item.nodeid: self._stage(item) for item in items}
        self._results = {item.nodeid: self._pool.submit(self._run, item) for item in items}

    def result(self, item: pytest.Function) -> Future[None]:
        """What becomes of a scenario."""
        return self._results[item.nodeid]

    def stop(self) -> None:
        """Begin no more, and do not wait for those that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _stage(self, item: pytest.Function) -> Stage:
        service, alone = _marks(item)
        return Stage(self._arena, service if alone else TEAM, service)

    def _run(self, item: pytest.Function) -> None:
        stage = self.stages[item.nodeid]
        begin = time.monotonic()
        try:
            stage.open()
            item.obj(**{**_parameters(item), "stage": stage})
            stage.check_laws()
        except BaseException:
            stage.note(f"failed with {stage.describe()}")
            stage.note(f"the kubelet: {self._arena.kubelet.errors}")
            raise
        finally:
            stage.close()
            stage.note(f"{stage.service}: {time.monotonic() - begin:.0f} s")


def _marks(item: pytest.Function) -> tuple[str, bool]:
    marker = item.get_closest_marker("scenario")
    assert marker
    service = "-".join([marker.args[0], *([item.callspec.id] if hasattr(item, "callspec") else [])])
    return service, marker.kwargs.get("alone", False)


def _parameters(item: pytest.Function) -> dict[str, object]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


@pytest.fixture(scope="session")
def arena(
    addresses: Iterator[str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    """Everything that scenarios share."""
    directory: Path = tmp_path_factory.mktemp("rollouts")
    with running_arena(directory, addresses) as running:
        yield running
        assert running.kubelet.errors == []


@pytest.fixture(scope="session")
def runner(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Runner]:
    """The selected scenarios, started."""
    items = [
        item
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.get_closest_marker("scenario")
    ]
    with ExitStack() as stack:
        for namespace in {TEAM, *(service for service, alone in map(_marks, items) if alone)}:
            arena.create_namespace(namespace)
        operator = stack.enter_context(arena.operator(TEAM))
        running = Runner(arena, items)
        yield running
        running.stop()
        assert operator.alive(), operator.log.read_text()[-3000:]
        assert "Traceback" not in operator.log.read_text(), operator.log


@pytest.fixture
def stage(runner: Runner, request: pytest.FixtureRequest) -> Stage:
    """The stage of this scenario."""
    return runner.stages[request.node.nodeid]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A scenario runs already: wait for it, and show what it noted."""
    if not pyfuncitem.get_closest_marker("scenario"):
        return None
    runner: Runner = pyfuncitem._request.getfixturevalue("runner")
    try:
        runner.result(pyfuncitem).result()
    finally:
        print("\n".join(runner.stages[pyfuncitem.nodeid].notes))
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that scenarios measured, also when all is well."""
    figures = [
        line
        for report in terminalreporter.getreports("passed")
        for name, text in report.sections
        if "stdout" in name
        for line in text.splitlines()
        if "100/0 after" in line
    ]
    if figures:
        terminalreporter.section("from a breach to 100/0")
        for line in figures:
            terminalreporter.write_line(line)
