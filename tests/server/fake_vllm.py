"""A stand-in for vLLM's OpenAI server: the same arguments and endpoints, behaviour scripted by FAKE_VLLM (JSON).

Keys: files (directory of the files that steer it while it runs: loaded, continue, broken, unhealthy), hold (listen only
once `loaded` exists), completion (ok | error | hang), exit ({code, text}: leave at once). A stream waits halfway for
`continue`.
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

SCRIPT: dict[str, Any] = json.loads(os.environ.get("FAKE_VLLM", "{}"))


class FakeVLLM:
    """State of the server: counters as vLLM's /metrics shows them."""

    def __init__(self) -> None:
        self.running = 0
        self.completed = 0
        self.generated = 0

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
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] != NAMES.served_model_name:
            return web.json_response({"error": f"model {body['model']} does not exist"}, status=404)
        if body.get("stream"):
            return await self.stream(request)
        mode = "error" if exists("broken") else SCRIPT.get("completion", "ok")
        if mode == "error":
            return web.json_response({"error": "the engine is broken"}, status=500)
        if mode == "hang":
            await asyncio.sleep(3600)
        self.completed += 1
        self.generated += 1
        return web.json_response({"choices": [{"text": " Paris", "finish_reason": "length"}]})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        self.running += 1
        try:
            for number in range(10):
                if number == 5:
                    await until("continue")
                self.generated += 1
                await response.write(f"data: {number}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
            self.completed += 1
        finally:
            self.running -= 1
        return response


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
    fake = FakeVLLM()
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", fake.health),
            web.get("/metrics", fake.metrics),
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
