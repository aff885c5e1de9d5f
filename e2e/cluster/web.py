"""Plain HTTP requests to what runs on this machine, past any proxy of the environment."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = 10
) -> tuple[int, str]:
    """Send one request; return the HTTP status, whichever it is, and the body. Raises OSError when nobody answers."""
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def status(url: str) -> int:
    """The HTTP status of a GET; 0 when nobody answers."""
    try:
        return ask(url, timeout=2)[0]
    except OSError:
        return 0


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    return status(url) == 200
