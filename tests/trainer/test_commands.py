"""The command line."""

import errno
import json
from pathlib import Path

import pytest

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
