"""`get -w`: the same screens, redrawn with every change that a watch tells, and once a second for what has an age.

Without a terminal there is nothing to redraw: then each state is printed below the one before.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tunewright_api.names import LABEL_MANAGED_BY, MANAGED_BY
from tunewright_cli.chain import Objects, build_chain, find_focus
from tunewright_cli.cluster.client import Object
from tunewright_cli.cluster.watch import Following, Source
from tunewright_cli.console import make_console
from tunewright_cli.exits import Exit
from tunewright_cli.forest import build_forest
from tunewright_cli.kinds import Kind
from tunewright_cli.session import Session
from tunewright_cli.views.style import now_utc

if TYPE_CHECKING:
    from rich.console import RenderableType

Screen = Callable[[list[list[Object]]], "RenderableType"]

_TICK_SECONDS = 1.0
_OURS = f"{LABEL_MANAGED_BY}={MANAGED_BY}"


def watch_chain(session: Session, name: str, *, wide: bool) -> Exit:
    """Follow one object and all that belongs to it."""
    from tunewright_cli.views.chain import render_chain

    namespace = session.namespace
    pods = Source(f"/api/v1/namespaces/{namespace}/pods", label_selector=_OURS, optional=True)

    console = make_console()

    def screen(items: list[list[Object]]) -> "RenderableType":
        objects = Objects.of(namespace, *items)
        chain = build_chain(find_focus(name, objects), objects)
        whole = render_chain(chain, now_utc(), wide=wide)
        fits = not console.is_terminal or len(console.render_lines(whole)) <= console.height
        return whole if fits else render_chain(chain, now_utc(), wide=wide, short=True)

    return _follow(session, [*(Source(kind.path(namespace), optional=True) for kind in Kind), pods], screen)


def watch_list(session: Session, namespace: str, *, wide: bool) -> Exit:
    """Follow everything in a namespace, or in all of them."""
    from rich.console import Group

    from tunewright_cli.views.forest import count, render_forest

    width = make_console().width

    def screen(items: list[list[Object]]) -> "RenderableType":
        rows = build_forest(*items)
        lines = render_forest(rows, now_utc(), width=width, namespaces=not namespace, wide=wide)
        return Group(*lines, count(rows))

    return _follow(session, [Source(kind.path(namespace), optional=True) for kind in Kind], screen)


def _follow(session: Session, sources: Sequence[Source], screen: Screen) -> Exit:
    from rich.live import Live

    console = make_console()
    with suppress(KeyboardInterrupt), Following(session.api, sources) as following:

        def now() -> "RenderableType":
            return screen([following.objects(index) for index in range(len(sources))])

        following.wait(None)
        if not console.is_terminal:
            while True:
                console.print(now())
                while not following.wait(None):
                    pass
                console.print()
        with Live(now(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            gc.enable()
            while True:
                following.wait(_TICK_SECONDS)
                live.update(now(), refresh=True)
    return Exit.OK
