"""The real vLLM with the real small model: through the supervisor, on real ports."""

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.images.model import model_path
from tests.server.harness import IDENTITY, Server, wait_for, write_manifest
from tests.server.vllm_runtime import ABSENT, find_runtime
from tunewright_api.names import ExitCode
from tunewright_server import policy
from tunewright_server.client import parse_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_runtime() is None, reason=ABSENT),
    pytest.mark.skipif(not (model_path() / "config.json").exists(), reason="no model here: run `make model`"),
]

MAX_TOKENS = 200


def start(directory: Path, spoil: Callable[[Path], object] = bool, **overrides: Any) -> Server:
    """A server of the real model, with its files as `spoil` leaves them; production timings hold, but for how often it
    looks."""
    runtime = find_runtime()
    assert runtime is not None
    server = Server(directory, **({"sampling": {"temperature": 0, "maxTokens": MAX_TOKENS}} | overrides))
    shutil.copytree(model_path(), server.artifact / "model")
    spoil(server.artifact / "model")
    server.overrides["digest"] = write_manifest(server.artifact)
    settings: dict[str, float] = {"CHECK": 2, "COMPLETION_TIMEOUT": 30, "COMPLETION": 60, "PERFORMANCE_TIMEOUT": 10}
    return server.start(runtime.engine, settings=settings, environment=runtime.environment)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One ready server for the tests that only ask."""
    server = start(tmp_path_factory.mktemp("real"))
    try:
        server.wait_ready(400)
        yield server
    finally:
        server.stop()


def post(server: Server, path: str, **body: Any) -> Any:
    """An open response of the API port."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps({"model": "demo"} | body).encode(),
        headers={"content-type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=120)


def ask(server: Server, **body: Any) -> dict[str, Any]:
    """The first choice of a completion."""
    with post(server, "/v1/completions", **body) as response:
        return dict(json.load(response)["choices"][0])


def chat(server: Server, text: str, **body: Any) -> dict[str, Any]:
    """The answer to one message, with its usage."""
    with post(server, "/v1/chat/completions", messages=[{"role": "user", "content": text}], **body) as response:
        return dict(json.load(response))


def counted(server: Server, outcome: str, source: str = "client") -> float:
    """A counter of our middleware, as Prometheus sees it."""
    wanted = [f'outcome="{outcome}"', f'source="{source}"', "tunewright_requests_total{"]
    lines = [line for line in server.metrics().splitlines() if all(part in line for part in wanted)]
    assert len(lines) == 1
    return float(lines[0].rpartition(" ")[2])


def test_it_is_ready_with_its_rules_and_its_speed(real: Server) -> None:
    status, body = real.get("/ready")
    assert (status, body["state"], body["policyDigest"]) == (200, "Ready", policy.digest())
    speed = body["performance"]
    assert 0 < speed["tpotMilliseconds"] < speed["ttftMilliseconds"] + 32 * speed["tpotMilliseconds"]
    assert speed["tokensPerSecond"] > 1


def test_it_knows_the_capital_of_france(real: Server) -> None:
    assert "Paris" in ask(real, prompt="The capital of France is", max_tokens=4)["text"]


TRICKS = [
    ("POST", "/v1/models"),
    ("HEAD", "/health"),
    ("OPTIONS", "/v1/chat/completions"),
    ("GET", "/v1/models/"),
    ("GET", "//v1/models"),
    ("GET", "/v1/%6Dodels"),
    ("GET", "/v1/models%2F"),
    ("GET", "/v1/../v1/models"),
    ("GET", "/v1/models;x"),
    ("GET", "/metrics"),
    ("GET", "/health"),
    ("GET", "/metrics/x"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/pause"),
]


def raw(server: Server, request: str) -> bytes:
    """Send bytes, and return all that comes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request.encode())
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(("method", "target"), TRICKS)
def test_another_spelling_of_a_request_does_not_exist(real: Server, method: str, target: str) -> None:
    answer = raw(real, f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert method == "HEAD" or b"There is no such endpoint. This server answers GET /v1/models, POST" in answer


@pytest.mark.parametrize("target", ["/v1/models?x=/../y", "http://127.0.0.1/v1/models"])
def test_a_query_or_an_absolute_address_is_the_same_request(real: Server, target: str) -> None:
    answer = raw(real, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_websocket_is_refused(real: Server) -> None:
    answer = raw(
        real,
        "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"There is no such endpoint" in answer


def test_a_client_that_leaves_ends_the_generation(real: Server) -> None:
    left = counted(real, "ClientClosed")
    with post(real, "/v1/completions", prompt="Once", max_tokens=MAX_TOKENS, ignore_eos=True, stream=True) as response:
        assert response.readline().startswith(b"data: ")
        assert running(real) == 1
        response.fp.raw._sock.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: running(real) == 0, 2)
    assert counted(real, "ClientClosed") == left + 1


def test_a_client_that_leaves_before_the_answer_ends_the_generation(real: Server) -> None:
    left = counted(real, "ClientClosed")
    body = json.dumps({"model": "demo", "prompt": "Once", "max_tokens": MAX_TOKENS, "ignore_eos": True})
    with socket.create_connection(("127.0.0.1", real.port)) as client:
        client.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_for(lambda: running(real) == 1, 20)
    wait_for(lambda: running(real) == 0, 2)
    assert counted(real, "ClientClosed") == left + 1


def running(server: Server) -> int:
    """Requests that vLLM works on."""
    return parse_metrics(server.metrics()).running


def test_requests_are_counted_by_how_they_end(real: Server) -> None:
    before = {name: counted(real, name) for name in ("Completed", "ClientError", "ServerError", "Broken")}
    ask(real, prompt="a", max_tokens=2)
    with post(real, "/v1/completions", prompt="a", max_tokens=2, stream=True) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(real, "/v1/completions", prompt="a", model="nobody")
    assert {name: counted(real, name) - before[name] for name in before} == {
        "Completed": 2,
        "ClientError": 1,
        "ServerError": 0,
        "Broken": 0,
    }
    assert counted(real, "Completed", "probe") >= 2


def test_every_metric_carries_the_labels_of_the_pod(real: Server) -> None:
    samples = [line for line in real.metrics().splitlines() if line and not line.startswith("#")]
    ours = (
        f'namespace="{IDENTITY["namespace"]}",inference_service="{IDENTITY["service"]}",'
        f'model_version="{IDENTITY["version"]}",revision="{IDENTITY["revision"]}"'
    )
    assert [line for line in samples if ours not in line] == []
    names = {line.partition("{")[0] for line in samples}
    assert names >= {
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:request_time_per_output_token_seconds_bucket",
        "vllm:request_success_total",
        "vllm:generation_tokens_total",
        "vllm:prompt_tokens_total",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:e2e_request_latency_seconds_bucket",
        "tunewright_requests_in_flight",
        "tunewright_server_ready",
        "tunewright_server_gpus",
    }


def test_the_default_temperature_holds_unless_a_request_says_its_own(real: Server) -> None:
    defaults = {ask(real, prompt="A random word:", max_tokens=12, seed=seed)["text"] for seed in range(3)}
    hot = {ask(real, prompt="A random word:", max_tokens=12, temperature=1.5, seed=seed)["text"] for seed in range(3)}
    assert (len(defaults), len(hot)) == (1, 3)


LENGTHS = [
    pytest.param({}, MAX_TOKENS, id="the default"),
    pytest.param({"max_tokens": 5}, 5, id="a request that wants less"),
    pytest.param({"max_tokens": 2 * MAX_TOKENS}, MAX_TOKENS, id="a request that wants more"),
]


@pytest.mark.parametrize(("body", "want"), LENGTHS)
def test_the_longest_answer_is_the_default_and_the_limit(real: Server, body: dict[str, Any], want: int) -> None:
    answer = chat(real, "Count.", ignore_eos=True, **body)
    assert answer["usage"]["completion_tokens"] == want
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_running_stream_survives_sigterm(tmp_path: Path) -> None:
    server = start(tmp_path)
    try:
        server.wait_ready(400)
        lines: list[bytes] = []

        def read() -> None:
            with post(
                server, "/v1/completions", prompt="Once upon a time", max_tokens=150, ignore_eos=True, stream=True
            ) as response:
                lines.extend(line for line in response if line.strip())

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: len(lines) > 5, 60)
        server.terminate()
        wait_for(lambda: server.get("/ready")[0] == 503, 5)
        already = len(lines)
        reader.join(120)
        assert server.wait(60) == 0, server.output()[-3000:]
        assert lines[-1] == b"data: [DONE]\n"
        assert b'"finish_reason":"length"' in lines[-2]
        assert len(lines) > already
        assert "every request answered" in server.result().message
    finally:
        server.stop()


def cut_weights(model: Path) -> None:
    """Half of the weights."""
    weights = model / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


BROKEN = [
    pytest.param(
        {"overrides": {"engine": {"extraArgs": ["--no-such-argument=1"]}}},
        ExitCode.INVALID_CONFIG,
        "It says: unrecognized arguments: --no-such-argument=1",
        id="a wrong argument",
    ),
    pytest.param(
        {"overrides": {"engine": {"maxModelLen": 99_999}}},
        ExitCode.INVALID_CONFIG,
        "engine.maxModelLen exceeds what the model was made for",
        id="a context that the model does not have",
    ),
    pytest.param(
        {"spoil": lambda model: (model / "tokenizer.json").unlink()},
        ExitCode.INVALID_DATA,
        "the tokenizer of the artifact is missing or broken",
        id="no tokenizer",
    ),
    pytest.param(
        {"spoil": cut_weights}, ExitCode.INVALID_DATA, "damaged, cut off, or no weights", id="half the weights"
    ),
    pytest.param(
        {"spoil": lambda model: (model / "chat_template.jinja").write_text("{% for")},
        ExitCode.INVALID_DATA,
        "the chat template of the artifact is no valid Jinja",
        id="a broken chat template",
    ),
]


@pytest.mark.parametrize(("how", "code", "message"), BROKEN)
def test_a_broken_model_is_never_ready_and_says_why(
    tmp_path: Path, how: dict[str, Any], code: ExitCode, message: str
) -> None:
    server = start(tmp_path, how.get("spoil", bool), **how.get("overrides", {}))
    try:
        seen: set[int] = set()
        wait_for(lambda: seen.add(server.get("/ready")[0]) or server.ended(), 400)  # type: ignore[func-returns-value]
        assert 200 not in seen
        assert server.wait() == code
        assert message in server.result().message
    finally:
        server.stop()
