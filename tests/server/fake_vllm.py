"""A stand-in for vLLM's OpenAI server: the same arguments and endpoints, behaviour scripted by FAKE_VLLM (JSON).

Keys: files (directory of the files that steer it while it runs: loaded, continue, broken, unhealthy), hold (listen only
once `loaded` exists), completion (ok | error | hang), stream (what the server's own question gets: ok | error | stall,
after two tokens), policy (the digest of the access rules, null for a vLLM without them), say (printed before it
listens), exit ({code, text}: leave at once). A client's stream waits halfway for `continue`.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from tunewright_api.names import HEADER_PROBE
from tunewright_server import policy

SCRIPT: dict[str, Any] = json.loads(os.environ.get("FAKE_VLLM", "{}"))


class FakeVLLM:
    """State of the server: counters as vLLM's /metrics shows them."""

    def __init__(self) -> None:
        self.running = 0
        self.completed = 0
        self.generated = 0
        self.unmarked = 0
        self.failed = 0

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=500 if exists("unhealthy") else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        label = '{engine="0",model_name="m"}'
        done = f'vllm:request_success_total{{engine="0",finished_reason="length",model_name="m"}} {self.completed}.0'
        lines = [
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            f"vllm:num_requests_running{label} {self.running}.0",
            f"vllm:num_requests_waiting{label} 0.0",
            f'vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} {self.running}.0',
            done,
            'vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 7.0',
            f"vllm:generation_tokens_total{label} {self.generated}.0",
            f'tunewright_requests_total{{outcome="ServerError",source="client"}} {self.failed}.0',
            f"unmarked_questions {self.unmarked}",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def policy(self, _: web.Request) -> web.Response:
        digest = SCRIPT.get("policy", policy.digest())
        if digest is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response({"digest": digest})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        probe = request.headers.get(HEADER_PROBE) == "1"
        self.unmarked += not probe
        if body["model"] != NAMES.served_model_name:
            return web.json_response({"error": f"model {body['model']} does not exist"}, status=404)
        if body.get("stream"):
            return await self.stream(request, body, probe)
        mode = "error" if exists("broken") else SCRIPT.get("completion", "ok")
        if mode == "error":
            self.failed += not probe
            return web.json_response({"error": "the engine is broken"}, status=500)
        if mode == "hang":
            await asyncio.sleep(3600)
        self.completed += 1
        self.generated += 1
        return web.json_response({"choices": [{"text": " Paris", "finish_reason": "length"}]})

    async def stream(self, request: web.Request, body: dict[str, Any], probe: bool) -> web.StreamResponse:
        mode = SCRIPT.get("stream", "ok") if probe else "ok"
        if mode == "error":
            return web.json_response({"error": "no streams today"}, status=500)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        self.running += 1
        try:
            for number in range(1, body.get("max_tokens", 10) + 1):
                if number == 6 and not probe:
                    await until("continue")
                if number == 3 and mode == "stall":
                    await asyncio.sleep(3600)
                self.generated += 1
                await response.write(event(number))
            await response.write(b'data: {"choices":[],"usage":{"completion_tokens":99}}\n\ndata: [DONE]\n\n')
            self.completed += 1
        finally:
            self.running -= 1
        return response


def event(tokens: int) -> bytes:
    """One token, as vLLM streams it with continuous_usage_stats."""
    data = {"choices": [{"text": " a", "finish_reason": None}], "usage": {"completion_tokens": tokens}}
    return f"data: {json.dumps(data)}\n\n".encode()


def exists(name: str) -> bool:
    """Tests steer a running fake by creating files."""
    return (Path(SCRIPT["files"]) / name).exists()


async def until(name: str) -> None:
    """Wait for a file."""
    while not exists(name):  # noqa: ASYNC110 (another process creates it)
        await asyncio.sleep(0.01)


async def serve() -> None:
    """Load as scripted, listen, end on SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    (Path(SCRIPT["files"]) / "environment.json").write_text(json.dumps(dict(os.environ)))
    (Path(SCRIPT["files"]) / "arguments.json").write_text(json.dumps(sys.argv[1:]))
    print("loading the model", flush=True)
    if SCRIPT.get("hold"):
        held, stopped = asyncio.ensure_future(until("loaded")), asyncio.ensure_future(stop.wait())
        await asyncio.wait({held, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return
    print(SCRIPT.get("say", "loaded"), file=sys.stderr, flush=True)
    fake = FakeVLLM()
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", fake.health),
            web.get("/metrics", fake.metrics),
            web.get(policy.POLICY_PATH, fake.policy),
            web.post("/v1/completions", fake.completions),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, NAMES.host, NAMES.port).start()
    await stop.wait()
    await runner.cleanup()


parser = argparse.ArgumentParser()
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--served-model-name")
NAMES, _ = parser.parse_known_args()
if leave := SCRIPT.get("exit"):
    print(leave["text"], file=sys.stderr, flush=True)
    if leave["code"] < 0:
        os.kill(os.getpid(), -leave["code"])
    sys.exit(leave["code"])
asyncio.run(serve())
