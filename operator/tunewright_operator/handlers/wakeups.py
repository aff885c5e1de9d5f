"""Who is woken by what: every loop listens under the key of its object."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

# kind, namespace, name
Key = tuple[str, str, str]


class Wakeups:
    """Events of sleeping loops by key. An object and its replacement of the same name may both listen for a while."""

    def __init__(self) -> None:
        self._listeners: dict[Key, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, key: Key) -> Iterator[asyncio.Event]:
        """An event that `wake(key)` sets."""
        event = asyncio.Event()
        self._listeners[key].add(event)
        try:
            yield event
        finally:
            self._listeners[key].discard(event)
            if not self._listeners[key]:
                del self._listeners[key]

    def wake(self, key: Key) -> None:
        """Wake the loops of this object; nobody listening is fine."""
        for event in self._listeners.get(key, ()):
            event.set()
