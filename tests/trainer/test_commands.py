"""The command line."""

import pytest

from tunewright_api.names import ExitCode, Stage
from tunewright_trainer.__main__ import build_parser


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
