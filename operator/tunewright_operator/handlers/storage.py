"""kopf storages that store nothing: the state of the world is the only state there is."""

import copy
from collections.abc import Iterable
from typing import Any

import kopf


class NoProgressStorage(kopf.ProgressStorage):  # type: ignore[misc]
    """Daemons and event handlers make no progress that would have to be remembered."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Nothing is known."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Write nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is there to be removed."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Write nothing."""

    def clear(self, *, essence: Any) -> Any:
        """The essence holds nothing of ours."""
        return copy.deepcopy(essence)


class NoDiffBaseStorage(kopf.DiffBaseStorage):  # type: ignore[misc]
    """There are no update handlers, so no last seen state is needed."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> Any:
        """An empty essence equals itself: no difference, no work."""
        return {}

    def fetch(self, *, body: kopf.Body) -> None:
        """Nothing is known."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Write nothing."""
