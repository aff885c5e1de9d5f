"""Connections to a port of a pod through the apiserver: one websocket each (v4.channel.k8s.io), no local port.

What comes out is a connected socket, so any HTTP client can speak over it, and nobody else on this machine can.
The frames of channel 0 are the data, those of channel 1 an error; each channel begins with the port's number.
"""

import contextlib
import http.client
import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Any

from tunewright_cli.cluster.client import Api
from tunewright_cli.cluster.errors import ForbiddenError, status_message
from tunewright_cli.exits import CliError, Exit

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_CHUNK = 1 << 16
_PORT_BYTES = 2


class PortForward:
    """A port of a pod. `last_error` is what the node said about the newest connection that broke."""

    def __init__(self, api: Api, namespace: str, pod: str, port: int) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._pod = pod
        self.port = port
        self.last_error = ""

    def connect(self) -> socket.socket:
        """A new connection to the port; raises CliError when the apiserver or the node refuses."""
        remote = self._open()
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._relay, args=(remote, theirs), daemon=True).start()
        return ours

    def _open(self) -> Any:
        import websocket

        carrier = self._api.connect()
        server = self._api.config.server
        try:
            return websocket.create_connection(
                server.replace("http", "ws", 1) + self._path,
                socket=carrier.sock,
                subprotocols=[PROTOCOL],
                header=[f"{name}: {value}" for name, value in self._api.headers()],
                suppress_origin=True,
            )
        except websocket.WebSocketBadStatusException as error:
            carrier.close()
            raise self._refusal(error.status_code, error.resp_body or b"") from None
        except (websocket.WebSocketException, OSError) as error:
            carrier.close()
            raise CliError(f"{server} does not forward to pod {self._pod} ({error}): use --url") from None

    def _refusal(self, status: int, body: bytes) -> CliError:
        if status == 403:
            advice = "you need the verbs get and create on pods/portforward, or give --url"
            return ForbiddenError(f"you may not forward to pod {self._pod}: {advice}", status, Exit.REFUSED)
        said = status_message(body)
        return CliError(f"the port of pod {self._pod} cannot be reached ({status} {said}): try again, or give --url")

    def _relay(self, remote: Any, local: socket.socket) -> None:
        """Move bytes both ways until one side closes. One thread: OpenSSL connections are not for two."""
        headers = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
        with selectors.DefaultSelector() as selector, local:
            selector.register(remote.sock, selectors.EVENT_READ)
            selector.register(local, selectors.EVENT_READ)
            try:
                while True:
                    ready = {key.fileobj for key, _ in selector.select()}
                    if local in ready:
                        data = local.recv(_CHUNK)
                        if not data:
                            break
                        remote.send_binary(bytes([_DATA]) + data)
                    if remote.sock in ready and not self._receive(remote, local, headers):
                        break
            except Exception as error:  # whatever broke, the other side must see the end of its stream
                self.last_error = self.last_error or str(error)
            finally:
                remote.shutdown()

    def _receive(self, remote: Any, local: socket.socket, headers: dict[int, int]) -> bool:
        """Pass on the frames that have arrived; False at the end of the stream."""
        while True:
            frame = remote.recv()
            if not frame:
                return False
            channel, payload = frame[0], frame[1:]
            skipped = min(headers[channel], len(payload))
            headers[channel] -= skipped
            payload = payload[skipped:]
            if channel == _ERROR and payload:
                self.last_error = payload.decode(errors="replace").strip()
                return False
            if payload:
                local.sendall(payload)
            # What TLS has already decrypted wakes no selector.
            if not getattr(remote.sock, "pending", lambda: 0)():
                return True


class ForwardedConnection(http.client.HTTPConnection):
    """HTTP over a port-forward."""

    def __init__(self, forward: PortForward, timeout: float) -> None:
        super().__init__("localhost", forward.port, timeout=timeout)
        self._forward = forward

    def connect(self) -> None:
        """Open the stream behind this connection."""
        self.sock = self._forward.connect()
        self.sock.settimeout(self.timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; what breaks it is told as the node says it."""
        with self._told_by_the_node():
            super().request(*args, **kwargs)

    def getresponse(self) -> http.client.HTTPResponse:
        """The answer; where there is none, the error is what the node says."""
        with self._told_by_the_node():
            return super().getresponse()

    @contextlib.contextmanager
    def _told_by_the_node(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException):
            if self._forward.last_error:
                raise ConnectionError(self._forward.last_error) from None
            raise
