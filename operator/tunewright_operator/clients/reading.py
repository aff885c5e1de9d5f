"""Reading an answer of somebody else: never more than fits."""

import json
from typing import Any

import aiohttp

MAX_BYTES = 1 << 20


async def read_json(response: aiohttp.ClientResponse) -> Any:
    """The JSON of an answer of at most MAX_BYTES; raises ValueError for a longer one, and for what is no JSON."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError(f"an answer of more than {MAX_BYTES} bytes")
    return json.loads(body)
