"""A judge that answers what a test tells it to, over real HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """What the judge was asked."""

    path: str
    authorization: str | None
    body: dict[str, Any]

    @property
    def question(self) -> str:
        """The user's message."""
        return str(self.body["messages"][1]["content"])


@dataclass
class JudgeServer:
    """Answers with `replies` in their order, the last one again and again.

    A string is the judge's message, a number the status of an error, bytes the whole body.
    """

    replies: list[str | int | bytes]
    url: str = ""
    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def judge_server(*replies: str | int | bytes) -> Iterator[JudgeServer]:
    """Serve while the block runs."""
    server = JudgeServer(list(replies))
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(Request(self.path, self.headers.get("Authorization"), body))
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            refusal = b'{"error": {"message": "no model for key secret"}}'
            status, content = (reply, refusal) if isinstance(reply, int) else (200, reply)
            if isinstance(content, str):
                content = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("Location", f"{server.url}/elsewhere")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
