"""Instant queries to a Prometheus: one round of queries, all at the same moment."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp
from yarl import URL

from tunewright_operator.clients.reading import read_json

TIMEOUT = aiohttp.ClientTimeout(total=5)

# (label set, value) of each sample of an instant vector
Vector = list[tuple[dict[str, str], float]]


class PrometheusError(Exception):
    """Prometheus did not answer, or refused a query; the message says how."""


async def query_round(url: str, queries: Mapping[str, str], at: datetime) -> dict[str, Vector]:
    """Every query evaluated at `at`, by its name. Raises PrometheusError when one of them has no answer."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        vectors = await asyncio.gather(*(_query(session, url, query, at) for query in queries.values()))
    return dict(zip(queries, vectors, strict=True))


async def _query(session: aiohttp.ClientSession, url: str, query: str, at: datetime) -> Vector:
    parameters = {"query": query, "time": str(at.timestamp())}
    # The URL may hold a password, and the sentence ends in the status of users' objects.
    who = f"Prometheus at {URL(url).with_user(None)}"
    try:
        async with session.get(f"{url.rstrip('/')}/api/v1/query", params=parameters, allow_redirects=False) as response:
            answer: Any = await read_json(response)
            status = response.status
    except TimeoutError as error:
        raise PrometheusError(f"{who} has not answered within {TIMEOUT.total:.0f} s") from error
    except (aiohttp.ClientError, ValueError, OSError) as error:
        # A ClientError may repeat the URL.
        raise PrometheusError(f"{who} does not answer: {type(error).__name__}") from error
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, dict) else answer
        raise PrometheusError(f"{who} answered {status}: {str(said)[:200]}")
    try:
        return [(dict(sample["metric"]), float(sample["value"][1])) for sample in answer["data"]["result"]]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise PrometheusError(f"{who} answered something else than an instant vector") from error
