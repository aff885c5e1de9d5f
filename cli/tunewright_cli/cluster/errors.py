"""What the apiserver may answer instead of what was asked for, as types with a sentence."""

import json

from tunewright_cli.exits import CliError, Exit


class ApiError(CliError):
    """The apiserver refused; `status` is the HTTP status and the message is the apiserver's."""

    def __init__(self, message: str, status: int, code: Exit = Exit.ERROR) -> None:
        super().__init__(message, code)
        self.status = status


class NotFoundError(ApiError):
    """There is no such object, or no such kind."""


class ForbiddenError(ApiError):
    """The user may not do this."""


class UnauthorizedError(ApiError):
    """The apiserver does not know the user."""


class ExpiredError(ApiError):
    """The resource version of a watch is too old: list again."""


class UnreachableError(CliError):
    """No apiserver answers."""


def api_error(status: int, body: bytes, server: str) -> ApiError:
    """The error of a refused request."""
    message = status_message(body) or f"HTTP status {status}"
    if status == 401:
        advice = "log in again, or choose another --context"
        return UnauthorizedError(f"{server} does not accept the credentials of the kubeconfig: {advice}", status)
    if status == 403:
        return ForbiddenError(message, status, Exit.REFUSED)
    if status == 404:
        return NotFoundError(message, status)
    if status == 410:
        return ExpiredError(message, status)
    return ApiError(message, status)


def status_message(body: bytes) -> str:
    """The sentence of a Status, or the text of an answer that is none."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:500]
