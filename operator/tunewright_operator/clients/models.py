"""Questions to a server pod and to a judge: the OpenAI API, one answer at a time."""

from typing import Any

import aiohttp
from yarl import URL

from tunewright_api.names import HEADER_PROBE, PORT_SERVER_HEALTH
from tunewright_api.results import ServerReadiness
from tunewright_operator.clients.outward import InwardError, connect_outward
from tunewright_operator.clients.reading import read_json

_READINESS_TIMEOUT = aiohttp.ClientTimeout(total=2)


class ModelError(Exception):
    """No answer came back; the message says why, without what the other side wrote.

    `refused`: the other side is there, and answered with an error or not in time.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


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
    """Whether a judge finds that the answer meets the rubric. Raises ModelError, also for an unclear verdict, and for a
    judge on the operator's own machine, which is asked nothing."""
    content = f"Question:\n{prompt}\n\nAnswer:\n{answer}\n\nRubric:\n{rubric}"
    messages = [{"role": "system", "content": _JUDGE}, {"role": "user", "content": content}]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"model": model, "messages": messages, "max_tokens": 8}
    try:
        connector = connect_outward(URL(base_url))
        verdict = await _complete(base_url, body, headers, timeout, connector)
    except InwardError as error:
        raise ModelError(f"{_who(base_url)} leads to the operator's own machine ({error})") from error
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
            return ServerReadiness.model_validate(await read_json(response))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _who(base_url: str) -> URL:
    return URL(base_url).with_user(None)


async def _complete(
    base_url: str,
    body: dict[str, Any],
    headers: dict[str, str],
    timeout: float,
    connector: aiohttp.TCPConnector | None = None,
) -> str:
    url = URL(f"{base_url.rstrip('/')}/chat/completions")
    who = _who(str(url))
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout), connector=connector) as session,
            # Not followed: where to is not for the other side to say.
            session.post(url, json={"temperature": 0, **body}, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ModelError(f"{who} answered {response.status}", refused=True)
            answer = await read_json(response)
    except TimeoutError as error:
        raise ModelError(f"{who} has not answered within {timeout:.0f} s", refused=True) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ModelError(f"{who} cannot be reached: {type(error).__name__}") from error
    except ValueError as error:
        raise ModelError(f"{who} answered something else than a chat completion", refused=True) from error
    try:
        return str(answer["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{who} answered something else than a chat completion", refused=True) from error
