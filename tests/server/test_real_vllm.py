"""The real vLLM with the real small model.

TUNEWRIGHT_VLLM_PYTHON names the interpreter that has vllm, where it is not the one that runs the tests.
"""

import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import Server, wait_for, write_manifest
from tunewright_server.arguments import ENGINE_MODULE

CACHE = Path(os.environ.get("TUNEWRIGHT_CACHE") or Path.home() / ".cache" / "tunewright").expanduser()
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct"
PYTHON = os.environ.get("TUNEWRIGHT_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PYTHON is None, reason="no vllm here: set TUNEWRIGHT_VLLM_PYTHON"),
    pytest.mark.skipif(not (MODEL / "config.json").exists(), reason=f"{MODEL} was not made"),
]


def post(server: Server, path: str, **body: Any) -> Any:
    """An open response of the API port."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps({"model": "demo", "temperature": 0} | body).encode(),
        headers={"content-type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=120)


def ask(server: Server, **body: Any) -> dict[str, Any]:
    """The JSON of a completion."""
    with post(server, "/v1/completions", **body) as response:
        return dict(json.load(response))


@pytest.fixture
def real(server: Server) -> Iterator[Server]:
    """A server of the real model; the production timings hold, but for the pause before the drain ends."""
    shutil.copytree(MODEL, server.artifact / "model")
    server.overrides["digest"] = write_manifest(server.artifact)
    assert PYTHON is not None
    server.start([PYTHON, "-m", ENGINE_MODULE], settings={"CHECK": 2, "COMPLETION_TIMEOUT": 30, "COMPLETION": 60})
    yield server
    server.stop()


def test_it_answers_and_a_running_stream_survives_sigterm(real: Server) -> None:
    started = time.monotonic()
    wait_for(lambda: real.state() == "Loading", 60)
    loading = time.monotonic()
    real.wait_ready(400)
    print(f"digest {loading - started:.1f} s, ready {time.monotonic() - started:.1f} s")
    answer = ask(real, prompt="The capital of France is", max_tokens=4)
    assert "Paris" in answer["choices"][0]["text"]

    lines: list[bytes] = []

    def read() -> None:
        with post(
            real, "/v1/completions", prompt="Once upon a time", max_tokens=150, ignore_eos=True, stream=True
        ) as response:
            lines.extend(line for line in response if line.strip())

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: len(lines) > 5, 60)
    real.terminate()
    wait_for(lambda: real.get("/ready")[0] == 503, 5)
    already = len(lines)
    reader.join(120)
    assert real.wait(60) == 0, real.output()[-3000:]
    assert lines[-1] == b"data: [DONE]\n"
    assert b'"finish_reason":"length"' in lines[-2]
    assert len(lines) > already
    assert "every request answered" in real.result().message
