"""HTTP to the apiserver with the standard library: requests, and watches as streams of lines.

Thread-safe: every request has a connection of its own while it runs, and idle ones are kept for the next.
"""

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tunewright_cli.cluster.credentials import Credentials
from tunewright_cli.cluster.errors import ApiError, ExpiredError, UnreachableError, api_error
from tunewright_cli.cluster.kubeconfig import ClusterConfig
from tunewright_cli.exits import CliError

Object = dict[str, Any]

CONNECT_SECONDS = 10
READ_SECONDS = 60
# The apiserver ends a watch after this time; what is silent for longer is a dead connection.
WATCH_SECONDS = 240
PAGE = 1000
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Response:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """The apiserver of a configuration. Errors are `ApiError` and `UnreachableError`."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._url = urlsplit(config.server)
        self._credentials = Credentials(config)
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    # --- requests ---

    def get(self, path: str, **query: str | int) -> Any:
        """GET one object, or any JSON."""
        return json.loads(self.call("GET", path, query=query).body)

    def text(self, path: str, **query: str | int) -> str:
        """GET text, such as a log."""
        return self.call("GET", path, query=query).body.decode(errors="replace")

    def list_all(self, path: str, selectors: Mapping[str, str] | None = None) -> tuple[list[Object], str]:
        """Every object at `path`, and the resource version to watch from.

        As the apiserver's own cache has them (resourceVersion 0): it answers ten times as fast as from etcd, and is as
        new as what a watch would have told. An apiserver that pages nevertheless is asked for all pages.
        """
        items: list[Object] = []
        query, token = dict(selectors or {}), ""
        while True:
            where: dict[str, str | int] = {"continue": token, "limit": PAGE} if token else {"resourceVersion": "0"}
            page = self.get(path, **query, **where)
            # The items of a list do not say their kind themselves.
            kind = {"kind": page.get("kind", "").removesuffix("List"), "apiVersion": page.get("apiVersion", "")}
            items += [kind | item for item in page.get("items") or ()]
            token = page["metadata"].get("continue") or ""
            if not token:
                return items, page["metadata"].get("resourceVersion", "")

    def create(self, path: str, body: Object) -> Any:
        """POST an object; returns what the apiserver made of it."""
        return json.loads(self.call("POST", path, body).body)

    def merge(self, path: str, body: Object) -> Any:
        """JSON merge patch of an object, as a field manager of our own; returns the object."""
        query = {"fieldManager": "tunewright-cli"}
        return json.loads(self.call("PATCH", path, body, query=query, content_type=MERGE_PATCH).body)

    def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        content_type: str = "application/json",
    ) -> Response:
        """Send one request; raises ApiError unless the answer is 2xx."""
        connection, answer = self._send(method, _target(path, query), body, content_type)
        with _sentences(self.config.server):
            content = answer.read()
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        if not 200 <= answer.status < 300:
            raise api_error(answer.status, content, self.config.server)
        return Response(answer.status, dict(answer.getheaders()), content)

    # --- watches ---

    def watch(
        self, path: str, version: str, selectors: Mapping[str, str] | None = None, *, seconds: float = WATCH_SECONDS
    ) -> Iterator[tuple[str, Object]]:
        """Changes since `version` as (ADDED|MODIFIED|DELETED|BOOKMARK, object), for so long.

        Raises ExpiredError when `version` is too old.
        """
        wanted: dict[str, str | int] = {
            **(selectors or {}),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(round(seconds), 1),
        }
        connection, answer = self._send("GET", _target(path, wanted), None, "", timeout=seconds + 30)
        try:
            if answer.status != 200:
                raise api_error(answer.status, answer.read(), self.config.server)
            with _sentences(self.config.server):
                for line in answer:
                    if not line.endswith(b"\n"):
                        return  # cut off: the caller goes on from the version that it has
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise (ExpiredError if status.get("code") == 410 else ApiError)(
                            status.get("message", "the watch ended"), status.get("code", 500)
                        )
                    yield event["type"], event["object"]
        finally:
            connection.close()

    # --- connections ---

    def headers(self) -> list[tuple[str, str]]:
        """What every request says about who sends it."""
        groups = [("Impersonate-Group", group) for group in self.config.user.impersonate_groups]
        return [("User-Agent", "tunewright-cli"), *self._credentials.headers().items(), *groups]

    def connect(self, timeout: float = READ_SECONDS) -> http.client.HTTPConnection:
        """A new connection, open."""
        url, proxy = self._url, self._proxy()
        # Where the TCP connection leads, and for whom the TLS is.
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        first = (proxy.hostname or "", proxy.port or 3128) if proxy else (host, port)
        connection = http.client.HTTPConnection(*first, timeout=CONNECT_SECONDS)
        # It would open the next one without TLS.
        connection.auto_open = 0
        if proxy:
            connection.set_tunnel(host, port)
        with _sentences(self.config.server):
            connection.connect()
            if url.scheme == "https":
                name = self.config.server_name or host
                connection.sock = self._tls().wrap_socket(connection.sock, server_hostname=name)
        connection.sock.settimeout(timeout)
        return connection

    def _tls(self) -> ssl.SSLContext:
        """Made once, also where several threads ask first."""
        with self._lock:
            if self._context is None:
                self._context = _tls_context(self.config, self._credentials)
            return self._context

    def _proxy(self) -> Any:
        """The proxy's URL, or None: the kubeconfig's, else the environment's as every tool reads it."""
        if self.config.proxy:
            return urlsplit(self.config.proxy)
        if not any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
            return None
        from urllib.request import getproxies, proxy_bypass

        found = getproxies().get(self._url.scheme)
        return urlsplit(found) if found and not proxy_bypass(self._url.hostname or "") else None

    def _send(
        self, method: str, target: str, body: Object | None, content_type: str, timeout: float = READ_SECONDS
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request over an idle connection, or over a new one where the server has closed that."""
        data = None if body is None else json.dumps(body).encode()
        kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                kept.sock.settimeout(timeout)
                return kept, self._ask(kept, method, target, data, content_type)
            except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
                kept.close()
        connection = self.connect(timeout)
        with _sentences(self.config.server):
            return connection, self._ask(connection, method, target, data, content_type)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str, data: bytes | None, content_type: str
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, self._url.path + target)
        connection.putheader("Accept", "application/json, */*")
        for name, value in self.headers():
            connection.putheader(name, value)
        if data is not None:
            connection.putheader("Content-Type", content_type)
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        return connection.getresponse()


def _target(path: str, query: Mapping[str, str | int] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _tls_context(config: ClusterConfig, credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=config.ca.decode() if config.ca else None)
    # Clusters' own authorities often lack what RFC 5280 asks for beyond a valid signature.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pair := credentials.certificate():
        import tempfile

        # OpenSSL reads both from a file only.
        with tempfile.NamedTemporaryFile(prefix="tunewright-") as file:
            file.write(b"\n".join(pair))
            file.flush()
            context.load_cert_chain(file.name)
    return context


@contextmanager
def _sentences(server: str) -> Iterator[None]:
    """Errors of the network as sentences."""
    try:
        yield
    except CliError:
        raise
    except ssl.SSLCertVerificationError as error:
        advice = "correct certificate-authority of the kubeconfig"
        raise UnreachableError(
            f"the certificate of {server} is not trusted ({error.verify_message}): {advice}"
        ) from None
    except socket.gaierror:
        raise UnreachableError(
            f"the name of {server} is unknown: correct the kubeconfig, or join its network"
        ) from None
    except TimeoutError:
        raise UnreachableError(f"{server} does not answer: join its network, or choose another --context") from None
    except ConnectionRefusedError:
        raise UnreachableError(f"nothing listens at {server}: start the cluster, or choose another --context") from None
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"{server} cannot be reached ({error}): try again, or choose another --context"
        ) from None
