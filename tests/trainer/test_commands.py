"""The command line."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.support import REPO, Job
from tunewright_api.names import ExitCode, Stage
from tunewright_trainer.__main__ import build_parser, run_stage
from tunewright_trainer.errors import StageError
from tunewright_trainer.stages import verify


def test_help_names_every_stage_and_exit_code() -> None:
    text = build_parser().format_help()
    for stage in Stage:
        assert f"  {stage.value} " in text
    for code in ExitCode:
        assert str(int(code)) in text
    assert "--config FILE" in text


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["tune"])
    assert "invalid choice: 'tune'" in capsys.readouterr().err


def test_verify_names_what_it_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path, digest: str) -> None:
        raise PermissionError(errno.EACCES, "because", str(root / "model"))

    monkeypatch.setattr(verify, "verify", refuse)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"artifact": "/mnt/claims/out/v1", "digest": "sha256:" + "0" * 64}))
    with pytest.raises(StageError, match="cannot read /mnt/claims/out/v1/model: permission denied") as caught:
        run_stage(Stage.VERIFY, config)
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE


def test_the_sentence_stands_before_the_traceback(job: Callable[..., Job]) -> None:
    broken = job()
    broken.config["directories"]["work"] = "/dev/null\0"
    failed = broken.run("prepare")
    entries = [json.loads(line) for line in failed.output.splitlines()]
    assert failed.code == ExitCode.INTERNAL
    assert entries[0]["message"] == "unexpected ValueError: embedded null byte: see the log of this container"
    assert ["traceback" in entry for entry in entries] == [False, True]


def test_a_port_that_is_taken(job: Callable[..., Job]) -> None:
    taken = job()
    taken.must("prepare")
    with socket.create_server(("0.0.0.0", taken.config["port"])):
        failed = taken.run("train")
    assert failed.code == ExitCode.INTERNAL
    assert f"on port {taken.config['port']} (Address already in use): end the process" in failed.message["message"]
    assert "Traceback" not in failed.output


PREEMPTED = {
    "outcome": "Failed",
    "reason": "Preempted",
    "message": "stopped by SIGTERM: nothing half-written is left, the stage starts again from its beginning",
}
VERIFIED = {
    "outcome": "Succeeded",
    "reason": "",
    "message": "",
    "verify": {"digest": "sha256:" + "0" * 64, "sizeBytes": 1},
}


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        pytest.param("stage = swallow", ExitCode.PREEMPTED, PREEMPTED, id="in a library that catches every Exception"),
        pytest.param("stage = clean_up", ExitCode.PREEMPTED, PREEMPTED, id="twice, while the stage cleans up"),
        pytest.param("main.write_termination_message = late", ExitCode.OK, VERIFIED, id="while the result is written"),
    ],
)
def test_sigterm(tmp_path: Path, program: str, code: ExitCode, message: dict[str, object]) -> None:
    prelude = """
import os, signal
from tunewright_api.results import Outcome, StageResult, VerifyResult
from tunewright_trainer import __main__ as main

write = main.write_termination_message
result = StageResult(outcome=Outcome.SUCCEEDED, verify=VerifyResult(digest="sha256:" + "0" * 64, size_bytes=1))
stop = lambda: os.kill(os.getpid(), signal.SIGTERM)

def stage(*_):
    return result

def swallow(*_):
    try:
        stop()
    except Exception:
        pass
    return result

def clean_up(*_):
    try:
        stop()
    finally:
        stop()

def late(result):
    stop()
    write(result)
"""
    term = tmp_path / "termination"
    finished = subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{program}\nmain.run_stage = stage\nmain.main(['verify'])"],
        env={
            **os.environ,
            "PYTHONPATH": f"{REPO / 'crds'}:{REPO / 'trainer_image'}",
            "TERMINATION_LOG_PATH": str(term),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == code, finished.stderr
    assert json.loads(term.read_text()) == message
    assert "Traceback" not in finished.stderr
