"""Servers of the tests: an OpenAI API that streams what a script says, and an apiserver that forwards to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Script:
    """What the model server does; `seen` are the bodies and headers of its requests."""

    pieces: tuple[str, ...] = ("The ", "answer", ".")
    status: int = 200
    error: str = ""
    break_off: bool = False
    seen: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def model_server(script: Script) -> Iterator[str]:
    """vLLM's streaming chat completions on a free port; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.seen.append((body, dict(self.headers)))
            if script.status != 200:
                answer = json.dumps({"error": {"message": script.error}}).encode()
                self.send_response(script.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                return
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in _events(script):
                data = f"data: {event}\n\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            if script.break_off:
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


def _events(script: Script) -> Iterator[str]:
    for piece in script.pieces:
        yield json.dumps({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
    if script.break_off:
        return
    yield json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    yield json.dumps({"choices": [], "usage": {"completion_tokens": len(script.pieces)}})
    yield "[DONE]"


@contextlib.contextmanager
def forwarding_apiserver(target: int, *, status: int = 101, refusal: str = "", node_error: str = "") -> Iterator[str]:
    """The port-forward endpoint of an apiserver: each websocket leads to 127.0.0.1:`target`; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if status != 101:
                body = json.dumps({"kind": "Status", "message": refusal}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            key = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _GUID).encode()).digest())
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", key.decode())
            self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"])
            self.end_headers()
            self.wfile.flush()
            _forward(self, target, node_error)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


def _forward(handler: http.server.BaseHTTPRequestHandler, target: int, node_error: str) -> None:
    """Channel 0 is data, channel 1 errors; each begins with the port number."""
    port = struct.pack("<H", target)
    lock = threading.Lock()

    def send(payload: bytes) -> None:
        length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
        with lock:
            handler.wfile.write(b"\x82" + length + payload)
            handler.wfile.flush()

    send(b"\x00" + port)
    if node_error:
        send(b"\x01" + port + node_error.encode())
        return
    send(b"\x01" + port)
    with socket.create_connection(("127.0.0.1", target)) as upstream:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := upstream.recv(4096):
                    send(b"\x00" + data)
                with lock:
                    handler.wfile.write(b"\x88\x00")

        threading.Thread(target=back, daemon=True).start()
        with contextlib.suppress(OSError):
            while (frame := _read_frame(handler)) is not None:
                upstream.sendall(frame[1:])


def _read_frame(handler: http.server.BaseHTTPRequestHandler) -> bytes | None:
    head = handler.rfile.read(2)
    if len(head) < 2 or head[0] & 0x0F == 8:
        return None
    length = head[1] & 0x7F
    if length == 126:
        length = struct.unpack(">H", handler.rfile.read(2))[0]
    elif length == 127:
        length = struct.unpack(">Q", handler.rfile.read(8))[0]
    mask = handler.rfile.read(4)
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(handler.rfile.read(length)))


@contextlib.contextmanager
def _serving(server: http.server.ThreadingHTTPServer) -> Iterator[int]:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
