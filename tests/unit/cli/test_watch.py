"""Objects that are kept up to date: what a watch tells, and what happens when it breaks."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from tunewright_cli.cluster import watch
from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import ApiError, ExpiredError, ForbiddenError, UnreachableError
from tunewright_cli.cluster.watch import Following, Source
from tunewright_cli.exits import CliError


def item(name: str, version: int = 1) -> Object:
    """An object at a resource version."""
    return {"metadata": {"name": name, "namespace": "team", "resourceVersion": str(version)}}


class Scripted:
    """An apiserver that answers each list and each watch with the next entry of its script, then waits for ever."""

    def __init__(self, lists: list[Any], watches: Sequence[Any] = ()) -> None:
        self._lists, self._watches = iter(lists), iter(watches)
        self.asked: list[str] = []

    def list_all(self, path: str, selectors: Mapping[str, str]) -> tuple[list[Object], str]:
        self.asked.append("list")
        answer = next(self._lists)
        if isinstance(answer, Exception):
            raise answer
        return answer, "1"

    def watch(self, path: str, version: str, selectors: Mapping[str, str]) -> Iterator[tuple[str, Object]]:
        self.asked.append(f"watch {version}")
        answer: Any = next(self._watches, None)
        if answer is None:
            threading.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        yield from answer


def follow(api: Scripted, *, optional: bool = False) -> Following:
    """One source of this apiserver."""
    return Following(cast(Api, api), [Source("/things", optional=optional)])


def names_once(api: Scripted, wanted: set[str], *, optional: bool = False) -> None:
    """Wait until exactly these objects are there."""
    with follow(api, optional=optional) as following:
        for _ in range(20):
            following.wait(10)
            if {one["metadata"]["name"] for one in following.objects(0)} == wanted:
                return
    raise AssertionError(f"not {wanted}")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_RETRY_SECONDS", 0.0)


def test_changes_are_applied_in_order() -> None:
    events = [("ADDED", item("b", 2)), ("MODIFIED", item("b", 3)), ("DELETED", item("a", 4)), ("ADDED", item("c", 5))]
    names_once(Scripted([[item("a")]], [events]), {"b", "c"})


def test_a_watch_that_ends_goes_on_from_the_newest_version() -> None:
    api = Scripted([[]], [[("ADDED", item("a", 7)), ("BOOKMARK", item("", 9))], [("ADDED", item("b", 10))]])
    names_once(api, {"a", "b"})
    assert api.asked[:3] == ["list", "watch 1", "watch 9"]


@pytest.mark.parametrize(
    "break_",
    [ExpiredError("too old", 410), UnreachableError("gone"), ApiError("busy", 503)],
    ids=["expired", "gone", "busy"],
)
def test_a_watch_that_breaks_is_begun_anew_with_a_list(break_: CliError) -> None:
    api = Scripted([[item("a")], [item("b")]], [break_])
    names_once(api, {"b"})
    assert api.asked[:3] == ["list", "watch 1", "list"]


def test_what_is_seen_stays_while_the_apiserver_is_away() -> None:
    gone = UnreachableError("gone")
    api = Scripted([[item("a")], gone, gone, [item("a"), item("b")]], [gone])
    names_once(api, {"a", "b"})


@pytest.mark.parametrize("error", [UnreachableError("nobody"), ForbiddenError("no", 403), ApiError("no", 400)])
def test_what_cannot_be_read_at_all_is_an_error(error: CliError) -> None:
    with follow(Scripted([error])) as following, pytest.raises(type(error)):
        following.wait(10)


def test_what_may_be_forbidden_is_empty() -> None:
    with follow(Scripted([ForbiddenError("no", 403)]), optional=True) as following:
        assert following.wait(10)
        assert following.objects(0) == []
