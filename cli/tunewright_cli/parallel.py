"""Calls side by side. concurrent.futures would import logging, and what else it needs, before the first request."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def start(call: Callable[[], T]) -> Callable[[], T]:
    """Run `call` in a thread; the function that comes back waits for its result, or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # it is raised where the result is asked for
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result


def gather(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all calls, in their order; raises the first error."""
    return [result() for result in [start(call) for call in calls]]
