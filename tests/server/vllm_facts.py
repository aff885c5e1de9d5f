"""Run by the Python that has vLLM: prints as JSON which arguments and endpoints the pinned vLLM has, and what becomes
of a request to each endpoint behind our middleware.

    {"arguments": {"--name": "--dest"}, "routes": [["GET", "/path"], ...],
     "answers": {"GET /path": [status, "error message or ''"]}}
"""

import asyncio
import json
import os
import re
import sys
from typing import Any

# Endpoints that only exist with these are walked as well.
os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

from vllm.entrypoints.launchers.app import build_app  # type: ignore[import-not-found]
from vllm.entrypoints.launchers.cli_args import make_arg_parser  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

from tunewright_server.arguments import MIDDLEWARE

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPTIONS = [
    *("--middleware", MIDDLEWARE, "--enable-scale-out", "--enable-tokenizer-info-endpoint"),
    *("--enable-offline-docs", "--enable-fault-tolerance"),
]
TASKS = ("generate",)


def walk(routes: Any, prefix: str = "") -> Any:
    """(methods, path) of every route, those of mounted applications included."""
    for route in routes:
        path = prefix + getattr(route, "path", "")
        yield tuple(getattr(route, "methods", None) or METHODS), path
        inner = getattr(route, "routes", None) or getattr(getattr(route, "app", None), "routes", None)
        yield from walk(inner or (), path)


async def ask(app: Any, kind: str, method: str, path: str) -> list[Any]:
    """Status and error message of one answer of the application; [0, exception] when it raises."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 9),
    }
    try:
        await app(scope, receive, send)
    except Exception as error:
        return [0, type(error).__name__]
    if kind == "websocket":
        return [0, sent[0]["type"]]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    try:
        return [sent[0]["status"], json.loads(body)["error"]["message"]]
    except (ValueError, KeyError, TypeError):
        return [sent[0]["status"], ""]


async def main() -> dict[str, Any]:
    """All facts."""
    parser = make_arg_parser(FlexibleArgumentParser())
    names = {option: action.dest for action in parser._actions for option in action.option_strings}
    app = build_app(parser.parse_args(OPTIONS), TASKS)
    found = sorted({(method, path) for methods, path in walk(app.routes) for method in methods})
    answers: dict[str, Any] = {}
    for _, path in found:
        concrete = re.sub(r"\{[^}]*\}", "x", path)
        for method in METHODS:
            answers[f"{method} {concrete}"] = await ask(app, "http", method, concrete)
        answers[f"WEBSOCKET {concrete}"] = await ask(app, "websocket", "GET", concrete)
    return {"arguments": names, "routes": found, "answers": answers}


if __name__ == "__main__":
    result = asyncio.run(main())
    json.dump(result, sys.stdout)
