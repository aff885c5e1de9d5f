"""Questions to a server pod and to a judge: the OpenAI API, one answer at a time."""

from typing import Any

import aiohttp

from tunewright_api.names import HEADER_PROBE, PORT_SERVER_HEALTH
from tunewright_api.results import ServerReadiness

_READINESS_TIMEOUT = aiohttp.ClientTimeout(total=2)


class ModelError(Exception):
    """No answer came back; the message says why, without what the other side wrote."""


async def ask(base_url: str, model: str, prompt: str, *, max_tokens: int, timeout: float) -> str:
    """The answer to one prompt at temperature 0, marked as a probe so that it does not count as traffic."""
    return await _complete(
        base_url,
        {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens},
        {HEADER_PROBE: "1"},
        timeout,
    )


_JUDGE = (
    "You check one answer of a language model against a rubric. Reply with the single word PASS when the answer meets "
    "the rubric, and with the single word FAIL when it does not."
)


async def judge(
    base_url: str, model: str, prompt: str, answer: str, rubric: str, *, token: str | None, timeout: float
) -> bool:
    """Whether a judge finds that the answer meets the rubric. Raises ModelError, also for an unclear verdict."""
    content = f"Question:\n{prompt}\n\nAnswer:\n{answer}\n\nRubric:\n{rubric}"
    messages = [{"role": "system", "content": _JUDGE}, {"role": "user", "content": content}]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    verdict = await _complete(base_url, {"model": model, "messages": messages, "max_tokens": 8}, headers, timeout)
    match verdict.strip().strip(".").upper():
        case "PASS":
            return True
        case "FAIL":
            return False
    raise ModelError("the judge answered neither PASS nor FAIL")


async def fetch_readiness(host: str) -> ServerReadiness | None:
    """GET /ready of a server pod; None when it does not answer as ours does."""
    url = f"http://{bracketed(host)}:{PORT_SERVER_HEALTH}/ready"
    try:
        async with aiohttp.ClientSession(timeout=_READINESS_TIMEOUT) as session, session.get(url) as response:
            return ServerReadiness.model_validate_json(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


async def _complete(base_url: str, body: dict[str, Any], headers: dict[str, str], timeout: float) -> str:
    url = f"{base_url.rstrip('/')}/chat/completions"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
            session.post(url, json={"temperature": 0, **body}, headers=headers) as response,
        ):
            if response.status != 200:
                raise ModelError(f"{url} answered {response.status}")
            answer = await response.json(content_type=None)
            return str(answer["choices"][0]["message"]["content"] or "")
    except TimeoutError as error:
        raise ModelError(f"{url} has not answered within {timeout:.0f} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ModelError(f"{url}: {error or type(error).__name__}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{url} answered something else than a chat completion") from error
