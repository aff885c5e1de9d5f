"""Runs scenarios side by side: a rollout takes its time, whatever the machine does, because its checks are seconds
apart.

Every selected test function that is marked `scenario` starts as soon as the arena stands, in a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from tests.rollouts.arena import Arena, create_namespaces
from tests.rollouts.slowdown import observing
from tests.rollouts.stage import Stage

# A few namespaces with a few services each, as teams have them.
TEAM, TEAMS = "team", 6
# Some at a time: the machine has to keep up with the load of all of them. Scenarios without load queue apart.
LOADED, QUIET = 7, 3


@dataclass(frozen=True)
class Script:
    """A marked test function: the name of its service, where it lives, and what comes before the mesh is there."""

    item: pytest.Function
    service: str
    group: str
    alone: bool
    quiet: bool
    timed: bool
    prelude: Callable[[Stage], None] | None

    @classmethod
    def of(cls, item: pytest.Function) -> Script:
        """Read the marker."""
        marker = item.get_closest_marker("scenario")
        assert marker
        service = "-".join([*marker.args, *([item.callspec.id] if hasattr(item, "callspec") else [])])
        alone = marker.kwargs.get("alone", False)
        return cls(
            item=item,
            service=service,
            group=service if alone else marker.kwargs.get("group", TEAM),
            alone=alone,
            quiet=marker.kwargs.get("quiet", False),
            timed=marker.kwargs.get("timed", False),
            prelude=marker.kwargs.get("prelude"),
        )

    def play(self, stage: Stage) -> None:
        """Call the function."""
        parameters = dict(self.item.callspec.params) if hasattr(self.item, "callspec") else {}
        self.item.obj(**{**parameters, "stage": stage})


@dataclass
class Runner:
    """The scenarios of a session by their test's id."""

    arena: Arena
    scripts: dict[str, Script]
    stages: dict[str, Stage] = field(default_factory=dict)
    _results: dict[str, Future[None]] = field(default_factory=dict)

    def result(self, test: str) -> Future[None]:
        """What becomes of a scenario."""
        return self._results[test]

    def set_up(self) -> list[str]:
        """Make the namespaces and the stages; returns the namespaces of the shared operator."""
        watched = set()
        for number, (test, script) in enumerate(self.scripts.items()):
            namespace = script.group if script.alone else f"{script.group}-{number % TEAMS}"
            self.stages[test] = Stage(self.arena, namespace, script.service)
            watched |= set() if script.alone else {namespace}
        create_namespaces(self.arena.plane, {stage.namespace for stage in self.stages.values()})
        return sorted(watched) or ["nobody"]

    def play_preludes(self) -> None:
        """One after the other."""
        for test, script in self.scripts.items():
            if script.prelude:
                self.stages[test].open()
                script.prelude(self.stages[test])

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Play all scenarios; none begins after the block, and none is waited for."""
        pools = {False: ThreadPoolExecutor(LOADED), True: ThreadPoolExecutor(QUIET)}
        # What is timed comes first; then what takes longest, so that nothing is left to wait for at the end.
        for test, script in sorted(self.scripts.items(), key=lambda item: (not item[1].timed, not item[1].alone)):
            self._results[test] = pools[script.quiet].submit(self._play, test, script)
        try:
            yield
        finally:
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=True)

    def _play(self, test: str, script: Script) -> None:
        stage = self.stages[test]
        begin = time.monotonic()
        try:
            stage.open()
            script.play(stage)
            stage.check_laws()
        except BaseException:
            stage.note(f"failed with {stage.describe()}")
            raise
        finally:
            stage.close()
            stage.note(f"{stage.service}: {time.monotonic() - begin:.0f} s")


@contextmanager
def running_scenarios(arena: Arena, items: list[pytest.Function]) -> Iterator[Runner]:
    """The shared operator, the mesh, and all scenarios of these tests."""
    runner = Runner(arena, {item.nodeid: Script.of(item) for item in items})
    with ExitStack() as stack:
        operator = stack.enter_context(arena.operator(*runner.set_up()))
        arena.slowdown = stack.enter_context(observing(operator.process.pid)).factor
        runner.play_preludes()
        stack.enter_context(arena.meshed())
        stack.enter_context(runner.playing())
        yield runner
        assert operator.alive(), operator.log.read_text()[-3000:]
        assert "Traceback" not in operator.log.read_text(), operator.log
