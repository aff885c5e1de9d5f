"""What we rely on in the pinned vLLM: its arguments and its endpoints, read from the vLLM of the server image."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.vllm_runtime import ABSENT, find_runtime
from tunewright_api.engine import RESERVED_ARGUMENTS, UNRESERVED_ARGUMENTS, Engine
from tunewright_api.server_config import ServerConfig
from tunewright_server import policy
from tunewright_server.arguments import build_arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(find_runtime() is None, reason=ABSENT),
]


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What vllm_facts prints."""
    runtime = find_runtime()
    assert runtime is not None
    done = subprocess.run(
        [*runtime.python, Path(__file__).with_name("vllm_facts.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout[done.stdout.index('{"arguments"') :]))


@pytest.fixture(scope="module")
def names(facts: dict[str, Any]) -> set[str]:
    """vLLM's long arguments without dashes and without the negations of switches."""
    options = set(facts["arguments"])
    return {o[2:] for o in options if o.startswith("--") and not (o.startswith("--no-") and f"--{o[5:]}" in options)}


def test_every_reserved_argument_exists(facts: dict[str, Any]) -> None:
    assert [name for name in RESERVED_ARGUMENTS if f"--{name}" not in facts["arguments"]] == []


def test_only_the_exempted_names_begin_a_reserved_one(names: set[str]) -> None:
    begins = {n for n in names for r in RESERVED_ARGUMENTS if r.startswith(n)} - set(RESERVED_ARGUMENTS)
    assert begins == set(UNRESERVED_ARGUMENTS)


# What opens a port or an endpoint, moves the address, loads code, weights or files, or takes the metrics away.
SUSPICIOUS = re.compile(
    r"\b(host|port|addr|address|uds|url|uri|ssl|grpc|api|origins|methods|credentials|proxy|nnodes|node-rank)\b|"
    r"endpoint|server|plugin|-cls$|class|middleware|processors$|connector|transfer|events|trust|domain|path\b|file|"
    r"modules|revision|\bhf\b|extra-config|load-format|executor|headless|docs|scale-out|\bfault\b|elastic|embeds|"
    r"template$|log-stats|trace-replay|data-parallel|parallel-size|log-(req|out)|logging-config|overrides|"
    r"speculative-config|spec-model"
)
HARMLESS = {
    "chat-template",  # part of the spec, rendered in a sandbox
    "decode-context-parallel-size",  # a share of the tensor-parallel GPUs
    "elastic-ep-max-dp-size",  # means nothing without enable-elastic-ep
    "enable-tower-connector-lora",  # a place in a vision model
    "lora-target-modules",  # places in the model
    "mm-encoder-fp8-scale-path",  # scales of a vision encoder: numbers, no code
    "mm-encoder-fp8-scale-save-path",  # writes where the pod may write
    "otlp-traces-endpoint",  # sends timings, no text; the NetworkPolicy decides where to
}


def test_nothing_that_opens_loads_or_moves_something_is_left(names: set[str]) -> None:
    assert {name for name in names if SUSPICIOUS.search(name)} - set(RESERVED_ARGUMENTS) == HARMLESS


def test_every_argument_of_ours_exists(facts: dict[str, Any]) -> None:
    engine = {
        "dtype": "Float16",
        "quantization": "AWQ",
        "maxModelLen": 512,
        "maxConcurrency": 8,
        "chunkedPrefill": True,
        "prefixCaching": False,
    }
    config = ServerConfig.model_validate(
        {
            "model": {"artifact": "/a", "digest": "sha256:" + "a" * 64, "servedName": "demo"},
            "identity": {"namespace": "n", "service": "s", "version": "v", "revision": "r"},
            "engine": engine,
            "sampling": {"temperature": 0, "maxTokens": 8},
        }
    )
    for gpus in (0, 1):
        given = build_arguments(config.model_copy(update={"gpus": gpus}), Path("/m"), 3)
        assert {a for a in given if a.startswith("--")} <= set(facts["arguments"])
    assert Engine.model_validate(engine).to_dict().keys() >= engine.keys()


def test_everything_that_is_allowed_exists_in_vllm(facts: dict[str, Any]) -> None:
    ours = {("GET", policy.POLICY_PATH)}
    assert (policy.PUBLIC | policy.OWN) - ours <= {(method, path) for method, path in facts["routes"]}


def test_every_other_endpoint_of_vllm_answers_404(facts: dict[str, Any]) -> None:
    assert len(facts["routes"]) > 60, "the walk misses endpoints"
    denied = {
        question: answer
        for question, answer in facts["answers"].items()
        if tuple(question.split(" ")) not in policy.PUBLIC and not question.startswith("WEBSOCKET ")
    }
    assert {status for status, _ in denied.values()} == {404}
    assert {message for _, message in denied.values()} == {
        f"There is no such endpoint. This server answers {', '.join(policy.describe())}"
    }


def test_no_endpoint_of_vllm_takes_a_websocket(facts: dict[str, Any]) -> None:
    refusals = [answer for question, answer in facts["answers"].items() if question.startswith("WEBSOCKET ")]
    assert refusals == [[0, "websocket.close"]] * len(refusals)


def test_what_is_allowed_reaches_vllm(facts: dict[str, Any]) -> None:
    # Without an engine the application cannot answer, but it is asked.
    assert facts["answers"]["POST /v1/chat/completions"][0] == 400
