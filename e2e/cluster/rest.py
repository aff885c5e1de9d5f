"""A few requests to the Kubernetes API with nothing but the standard library.

The cluster's own set-up needs no more; tests use kubectl or the Kubernetes client.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from e2e.cluster.errors import ClusterError

FIELD_MANAGER = "tunewright-e2e"


class ApiError(ClusterError):
    """The API refused a request; `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """The API at `server`, as the owner of `token`.

    `verify=False` is for health endpoints on the loopback, whose certificates their servers sign themselves.
    """

    def __init__(self, server: str, ca: Path, token: str, *, verify: bool = True) -> None:
        self.server = server
        self._token = token
        self._context = ssl.create_default_context(cafile=str(ca))
        if not verify:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        # No proxy of the environment lies between us and a cluster on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """Send one request and return the decoded JSON (or the text); raise ApiError on a refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        request = urllib.request.Request(self.server + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as response:
                text = response.read().decode()
                return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")
            raise ApiError(error.code, f"{method} {path}: {_message(detail)}") from None

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, path: str, body: object) -> Any:
        return self.request("POST", path, body)

    def apply(self, path: str, body: object) -> Any:
        """Server-side apply of one object; `path` names the object."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return self.request("PATCH", path + query, body, "application/apply-patch+yaml")

    def merge(self, path: str, body: object) -> Any:
        """JSON merge patch of one object."""
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete one object; one that is not there is fine."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.code != 404:
                raise

    def ready(self, path: str = "/readyz") -> bool:
        """Whether the server answers that it is ready."""
        try:
            return bool(self.request("GET", path) == "ok")
        except (OSError, ApiError):
            return False


def _message(detail: str) -> str:
    try:
        return str(json.loads(detail).get("message", detail))
    except (ValueError, AttributeError):
        return detail.strip()
