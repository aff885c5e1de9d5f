"""Many requests at a time: one thread and one connection for each that is under way."""

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Sequence

from tunewright_cli.exits import CliError
from tunewright_cli.load.chat import AnswerError, chat_body, connect_to, stream_chat
from tunewright_cli.load.endpoint import Endpoint
from tunewright_cli.load.statistics import Sample


def run_load(
    endpoint: Endpoint,
    model: str,
    prompts: Sequence[str],
    *,
    requests: int,
    concurrency: int,
    max_tokens: int,
    seen: Callable[[Sample], None] = lambda _: None,
) -> list[Sample]:
    """Send the requests; `seen` is called with each sample as it comes, by one thread at a time."""
    numbers, lock, samples = itertools.count(), threading.Lock(), list[Sample]()
    began = time.perf_counter()
    failures: list[CliError] = []

    def work(place: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while not failures:
            with lock:
                number = next(numbers)
            if number >= requests:
                break
            body = chat_body(model, [{"role": "user", "content": prompts[number % len(prompts)]}], max_tokens)
            try:
                connection = connection or _connected(endpoint, place)
                sample = _measure(connection, endpoint, body, began)
            except AnswerError:
                raise
            except CliError as error:  # no connection at all: the others will not get one either
                failures.append(error)
                break
            if sample.error:
                connection.close()
                connection = None
            with lock:
                samples.append(sample)
                seen(sample)
        if connection:
            connection.close()

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(min(concurrency, requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures and not samples:
        raise failures[0]
    return samples


def _connected(endpoint: Endpoint, place: int) -> http.client.HTTPConnection:
    """A connection that is there: a handshake is no part of a first token."""
    connection = endpoint.connect(place)
    connect_to(connection, endpoint.name)
    return connection


def _measure(
    connection: http.client.HTTPConnection, endpoint: Endpoint, body: dict[str, object], began: float
) -> Sample:
    """One request."""
    started = time.perf_counter() - began
    first: float | None = None
    pieces, tokens = 0, None
    try:
        for piece in stream_chat(connection, endpoint.path, endpoint.headers, body):
            if piece.text:
                pieces += 1
                first = first or time.perf_counter() - began
            tokens = piece.tokens if piece.tokens is not None else tokens
    except AnswerError as error:
        return Sample(started, first, time.perf_counter() - began, pieces, str(error))
    return Sample(started, first, time.perf_counter() - began, pieces if tokens is None else tokens)
