"""The supervisor in a process of its own, with a scripted vLLM: what the kubelet, the operator and clients see."""

import json
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.server.harness import Server, wait_for, write_artifact, write_manifest
from tunewright_api.names import ExitCode
from tunewright_api.results import Outcome
from tunewright_server import policy


def test_ready_only_after_a_completion_came_back(server: Server) -> None:
    server.start(script={"hold": True})
    wait_for(lambda: server.state() == "Loading")
    assert server.get("/ready")[0] == 503
    assert server.get("/live")[0] == 200
    server.touch("loaded")
    server.wait_ready()
    status, body = server.get("/ready")
    speed = body.pop("performance")
    assert (status, body) == (
        200,
        {"state": "Ready", "message": "a completion came back from the model", "policyDigest": policy.digest()},
    )
    assert set(speed) == {"ttftMilliseconds", "tpotMilliseconds", "tokensPerSecond"}
    assert all(figure > 0 for figure in speed.values())
    assert "unmarked_questions{" in server.metrics()
    assert 'revision="0a1b2c3d"} 0\n' in server.metrics().split("unmarked_questions")[1]


def test_a_vllm_without_our_rules_never_becomes_ready(server: Server) -> None:
    server.start(script={"policy": None})
    assert server.wait() == ExitCode.INVALID_CONFIG
    assert "vLLM runs without access rules" in server.result().message
    assert "Ready" not in server.output().split("without access rules")[0]


def test_a_vllm_with_other_rules_never_becomes_ready(server: Server) -> None:
    server.start(script={"policy": "sha256:" + "0" * 64})
    assert server.wait() == ExitCode.INVALID_CONFIG
    assert f"with the access rules sha256:{'0' * 64} instead of {policy.digest()}" in server.result().message


def test_a_template_that_cannot_be_rendered_never_becomes_ready(server: Server) -> None:
    said = "(APIServer pid=7) ERROR 11-22 16:11:54 [hf.py:486] jinja2.exceptions.TemplateSyntaxError: unexpected 'end'"
    server.start(script={"say": said})
    assert server.wait() == ExitCode.INVALID_DATA
    assert "the chat template of the artifact is no valid Jinja (unexpected 'end')" in server.result().message


def test_a_failing_measurement_does_not_hold_up_readiness(server: Server) -> None:
    server.start(script={"stream": "error"})
    server.wait_ready()
    assert "performance" not in server.get("/ready")[1]
    assert "the speed cannot be measured: POST /v1/completions answered 500" in server.output()


def test_a_slow_model_is_measured_by_the_tokens_that_came_in_time(server: Server) -> None:
    server.start(script={"stream": "stall"})
    server.wait_ready()
    assert server.get("/ready")[1]["performance"]["tokensPerSecond"] > 0


def test_metrics_are_relayed_with_the_labels_of_the_pod(server: Server) -> None:
    server.start(script={"hold": True})
    wait_for(lambda: server.state() == "Loading")
    ours = 'namespace="shop",inference_service="guide",model_version="guide-v1",revision="0a1b2c3d"'
    down = server.metrics().splitlines()
    assert [line for line in down if not line.startswith("#")] == [
        f"tunewright_server_ready{{{ours}}} 0",
        f"tunewright_server_gpus{{{ours}}} 0",
    ]
    server.touch("loaded")
    server.wait_ready()
    lines = server.metrics().splitlines()
    assert f"tunewright_server_ready{{{ours}}} 1" in lines
    assert f'vllm:num_requests_running{{{ours},engine="0",model_name="m"}} 0.0' in lines
    assert all(ours in line for line in lines if not line.startswith("#"))


def test_vllm_gets_its_arguments_and_no_back_door(server: Server) -> None:
    server.start()
    server.wait_ready()
    arguments = json.loads((server.directory / "arguments.json").read_text())
    environment = json.loads((server.directory / "environment.json").read_text())
    assert arguments[arguments.index("--model") + 1] == str(server.artifact / "model")
    assert arguments[arguments.index("--served-model-name") + 1] == "demo"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in environment


def test_extra_arguments_come_first_so_that_ours_hold(server: Server) -> None:
    server.overrides["engine"] = {"extraArgs": ["--port=9", "--seed=7"], "prefixCaching": False}
    server.start()
    server.wait_ready()
    arguments = json.loads((server.directory / "arguments.json").read_text())
    assert arguments[:2] == ["--port=9", "--seed=7"]
    assert "--no-enable-prefix-caching" in arguments


def test_a_failing_completion_never_becomes_ready(server: Server) -> None:
    server.start(script={"completion": "error"}, settings={"STUCK": 0.5, "STUCK_EXIT": 0.5})
    wait_for(lambda: server.state() == "Unhealthy")
    seen = set()
    while not server.ended():
        seen.add(server.get("/ready")[0])
    assert 200 not in seen
    assert server.wait() == ExitCode.INTERNAL
    assert "answered 500" in server.result().message


def test_unhealthy_when_completions_stop_and_ready_again_when_they_return(server: Server) -> None:
    server.start()
    server.wait_ready()
    server.touch("broken")
    wait_for(lambda: server.state() == "Unhealthy")
    assert server.get("/ready")[0] == 503
    (server.directory / "broken").unlink()
    server.wait_ready()


def test_what_fails_for_a_client_is_tried_at_once(server: Server) -> None:
    server.start(settings={"COMPLETION": 3600})
    server.wait_ready()
    server.touch("broken")
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/completions",
        data=json.dumps({"model": "demo", "prompt": "x"}).encode(),
        headers={"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(request, timeout=20)
    wait_for(lambda: server.state() == "Unhealthy")


def test_unhealthy_when_health_fails(server: Server) -> None:
    server.start()
    server.wait_ready()
    server.touch("unhealthy")
    wait_for(lambda: server.state() == "Unhealthy")
    assert "/health answered 500" in server.get("/ready")[1]["message"]


def test_a_hanging_engine_turns_live_to_503_and_ends_with_the_cause(server: Server) -> None:
    server.start(script={"completion": "hang"}, settings={"COMPLETION_TIMEOUT": 0.1, "STUCK": 0.5, "STUCK_EXIT": 1.0})
    wait_for(lambda: server.get("/live")[0] == 503)
    assert server.wait() == ExitCode.INTERNAL
    result = server.result()
    assert (result.outcome, result.reason) == (Outcome.FAILED, "Internal")
    assert "stuck" in result.message


def test_a_silent_load_is_stuck_and_a_slow_one_is_not(server: Server) -> None:
    server.start(script={"hold": True}, settings={"LOADING_SILENCE": 0.5})
    wait_for(lambda: server.state() == "Loading")
    assert server.get("/live")[0] == 200
    wait_for(lambda: server.get("/live")[0] == 503)
    assert "while loading" in server.get("/live")[1]["message"]


def test_terminated_while_stuck_is_a_failure(server: Server) -> None:
    server.start(script={"hold": True}, settings={"LOADING_SILENCE": 0.3})
    wait_for(lambda: server.get("/live")[0] == 503)
    server.terminate()
    assert server.wait() == ExitCode.INTERNAL
    assert "was stuck" in server.result().message


CRASHES = [
    pytest.param(
        {"code": 1, "text": "Traceback\nRuntimeError: weights are odd"},
        ExitCode.INTERNAL,
        "vLLM exited with code 1 without being asked to. Its last words: RuntimeError: weights are odd",
        id="a crash shows the exception",
    ),
    pytest.param(
        {"code": 2, "text": "usage: api_server\napi_server.py: error: unrecognized arguments: --x"},
        ExitCode.INVALID_CONFIG,
        "unrecognized arguments: --x",
        id="a wrong argument is a wrong configuration",
    ),
    pytest.param({"code": -9, "text": "loading"}, ExitCode.OUT_OF_MEMORY, "SIGKILL", id="a SIGKILL is memory"),
]


@pytest.mark.parametrize(("leave", "code", "message"), CRASHES)
def test_a_crash_of_vllm_ends_the_server(server: Server, leave: dict[str, Any], code: ExitCode, message: str) -> None:
    server.start(script={"exit": leave})
    assert server.wait() == code
    assert server.result().reason == code.reason
    assert message in server.result().message


def test_sigterm_lets_a_running_stream_end(server: Server) -> None:
    server.start()
    server.wait_ready()
    received: list[bytes] = []
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/completions",
        data=json.dumps({"model": "demo", "prompt": "x", "stream": True}).encode(),
        headers={"content-type": "application/json"},
    )

    def read() -> None:
        with urllib.request.urlopen(request, timeout=20) as response:
            received.extend(response)

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: b"data: " in b"".join(received[8:]))
    server.terminate()
    wait_for(lambda: server.get("/ready")[0] == 503)
    assert server.get("/ready")[1]["message"] == "the server is stopping: running requests are being finished"
    assert server.get("/live")[0] == 200
    assert reader.is_alive()
    server.touch("continue")
    reader.join(20)
    assert received[-2:] == [b"data: [DONE]\n", b"\n"]
    assert server.wait() == 0
    assert "every request answered" in server.result().message


def test_drain_seconds_bound_the_drain(server: Server) -> None:
    server.overrides["drainSeconds"] = 1
    server.start()
    server.wait_ready()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        body = json.dumps({"model": "demo", "stream": True})
        client.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        assert client.recv(10)
        server.terminate()
        assert server.wait() == 0
    assert "(drainSeconds) with 1 requests running" in server.result().message


def test_sigterm_while_loading_stops_at_once(server: Server) -> None:
    server.start(script={"hold": True})
    wait_for((server.directory / "arguments.json").exists)
    server.terminate()
    assert server.wait(10) == 0
    assert server.result().message == "stopped before the first completion"


def test_a_changed_file_is_refused_before_vllm_starts(server: Server) -> None:
    server.overrides["digest"] = write_artifact(server.artifact)
    (server.artifact / "model" / "model.safetensors").write_text("tampered")
    server.start()
    assert server.wait() == ExitCode.DIGEST_MISMATCH
    assert server.result().reason == "DigestMismatch"
    assert "model/model.safetensors was changed" in server.result().message
    assert not (server.directory / "arguments.json").exists()


def test_another_artifact_is_refused(server: Server) -> None:
    server.overrides["digest"] = "sha256:" + "0" * 64
    write_artifact(server.artifact)
    server.start()
    assert server.wait() == ExitCode.DIGEST_MISMATCH


def test_an_adapter_alone_cannot_be_served(server: Server) -> None:
    (server.artifact / "adapter").mkdir(parents=True)
    (server.artifact / "adapter" / "adapter_model.safetensors").write_text("a")
    server.overrides["digest"] = write_manifest(server.artifact, "Adapter")
    server.start()
    assert server.wait() == ExitCode.INVALID_CONFIG
    assert "an adapter alone cannot be served" in server.result().message


def test_an_unmounted_artifact_is_named(server: Server) -> None:
    server.overrides["digest"] = "sha256:" + "0" * 64
    server.start()
    assert server.wait() == ExitCode.INPUT_NOT_READABLE
    assert "is the claim of the artifact mounted?" in server.result().message


@pytest.mark.parametrize("field", ["port", "healthPort"])
def test_a_taken_port_is_named_before_loading(server: Server, field: str) -> None:
    port = server.port if field == "port" else server.health_port
    with socket.socket() as other:
        other.bind(("0.0.0.0", port))
        other.listen()
        server.start()
        assert server.wait() == ExitCode.INTERNAL
    assert f"{field} {port} is taken" in server.result().message


def test_a_wrong_configuration_names_the_field(server: Server) -> None:
    server.overrides["engine"] = {"maxModelLen": "long"}
    server.start()
    assert server.wait() == ExitCode.INVALID_CONFIG
    assert "engine.maxModelLen: " in server.result().message
