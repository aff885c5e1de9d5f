"""A test that is marked `scenario` waits for the result of a function that runs already; see `runner`.

Run this folder in one process: with pytest-xdist every worker would play all of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rollouts.arena import Arena, running_arena
from tests.rollouts.runner import Runner, running_scenarios
from tests.rollouts.stage import Stage


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scenario(service, alone, group, quiet, timed, prelude): plays beside the others on the InferenceService of "
        "this name. alone: in a namespace of its own, whose operator it starts itself; group: beginning of its "
        "namespace's name; quiet: it sends no load; timed: it measures how long something takes; prelude: what it does "
        "before the mesh is there",
    )


@pytest.fixture(scope="session")
def arena(addresses: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Everything that scenarios share."""
    with running_arena(tmp_path_factory.mktemp("rollouts"), addresses) as running:
        yield running
        assert running.kubelet.errors == []


@pytest.fixture(scope="session")
def runner(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Runner]:
    """The selected scenarios, started."""
    items = [one for one in request.session.items if isinstance(one, pytest.Function) and _is_scenario(one)]
    with running_scenarios(arena, items) as running:
        yield running


@pytest.fixture
def stage(runner: Runner, request: pytest.FixtureRequest) -> Stage:
    """The stage of this scenario."""
    return runner.stages[request.node.nodeid]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for a scenario, and show what it noted."""
    if not _is_scenario(pyfuncitem):
        return None
    runner: Runner = pyfuncitem._request.getfixturevalue("runner")
    try:
        runner.result(pyfuncitem.nodeid).result()
    finally:
        print("\n".join(runner.stages[pyfuncitem.nodeid].notes))
    return True


def _is_scenario(item: pytest.Item) -> bool:
    return item.get_closest_marker("scenario") is not None


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
