"""Progress of a run, asked of rank 0."""

import aiohttp
from pydantic import ValidationError

from tunewright_api.results import Progress

TIMEOUT = aiohttp.ClientTimeout(total=2)


async def fetch_progress(host: str, port: int) -> Progress | None:
    """GET /progress; None when the trainer does not answer (yet), which is no reason to worry."""
    url = f"http://[{host}]:{port}/progress" if ":" in host else f"http://{host}:{port}/progress"
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(url) as response:
            if response.status != 200:
                return None
            return Progress.model_validate_json(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValidationError):
        return None
