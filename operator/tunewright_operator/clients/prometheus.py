"""Instant queries to a Prometheus: one round of queries, all at the same moment."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp

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
    try:
        async with session.get(f"{url.rstrip('/')}/api/v1/query", params=parameters) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            status = response.status
    except TimeoutError as error:
        raise PrometheusError(f"Prometheus at {url} has not answered within {TIMEOUT.total:.0f} s") from error
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise PrometheusError(f"Prometheus at {url} does not answer: {error or type(error).__name__}") from error
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, dict) else answer
        raise PrometheusError(f"Prometheus at {url} answered {status}: {str(said)[:200]}")
    return [(sample["metric"], float(sample["value"][1])) for sample in answer["data"]["result"]]
