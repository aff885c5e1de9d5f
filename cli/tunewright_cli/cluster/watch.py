"""Objects that are kept up to date: one thread per kind lists, then follows the changes, and says when it saw one."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import ApiError, ExpiredError, ForbiddenError, UnreachableError
from tunewright_cli.exits import CliError

_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Source:
    """Objects to follow: their path and, if not all of them, a label selector. What is `optional` may be forbidden."""

    path: str
    label_selector: str = ""
    optional: bool = False

    @property
    def selectors(self) -> dict[str, str]:
        """Parameters of the request."""
        return {"labelSelector": self.label_selector} if self.label_selector else {}


class Following:
    """The objects of several sources, as they are now.

    `with Following(api, sources) as objects:` then `objects.wait(seconds)` returns True after a change.
    """

    def __init__(self, api: Api, sources: Sequence[Source]) -> None:
        self._api = api
        self._sources = sources
        self._objects: list[dict[str, Object]] = [{} for _ in sources]
        self._listed = [False] * len(sources)
        self._changed = threading.Condition()
        self._dirty = False
        self._error: CliError | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> "Following":
        for index in range(len(self._sources)):
            threading.Thread(target=self._run, args=(index,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # The threads are daemons: a watch that waits for an event ends with the process.
        self._stopped.set()

    def wait(self, seconds: float | None) -> bool:
        """Wait for a change, at most so long, and forget it; True when there was one.

        Raises the error of a source that cannot be read at all (no permission, no such kind).
        """
        with self._changed:
            self._changed.wait_for(lambda: (self._dirty and all(self._listed)) or self._error, seconds)
            if self._error:
                raise self._error
            changed, self._dirty = self._dirty and all(self._listed), False
            return changed

    def objects(self, index: int) -> list[Object]:
        """The objects of a source now."""
        with self._changed:
            return list(self._objects[index].values())

    def _run(self, index: int) -> None:
        source = self._sources[index]
        while not self._stopped.is_set():
            try:
                items, version = self._api.list_all(source.path, source.selectors)
                self._replace(index, {_key(item): item for item in items})
                self._follow(index, source, version)
            except ExpiredError:
                continue
            except CliError as error:
                if source.optional and isinstance(error, ForbiddenError):
                    self._replace(index, {})
                    return
                if not (self._listed[index] and _passes(error)):
                    self._fail(error)
                    return
                self._stopped.wait(_RETRY_SECONDS)

    def _follow(self, index: int, source: Source, version: str) -> None:
        while not self._stopped.is_set():
            for kind, item in self._api.watch(source.path, version, source.selectors):
                version = item["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    self._apply(index, kind, item)

    def _apply(self, index: int, kind: str, item: Object) -> None:
        with self._changed:
            if kind == "DELETED":
                self._objects[index].pop(_key(item), None)
            else:
                self._objects[index][_key(item)] = item
            self._mark()

    def _replace(self, index: int, items: dict[str, Object]) -> None:
        with self._changed:
            self._objects[index] = items
            self._listed[index] = True
            self._mark()

    def _fail(self, error: CliError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _mark(self) -> None:
        self._dirty = True
        self._changed.notify_all()


def _key(item: Object) -> str:
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def _passes(error: CliError) -> bool:
    """A restart of the apiserver is no reason to give up what has been seen."""
    return isinstance(error, UnreachableError) or (isinstance(error, ApiError) and error.status >= 429)
