"""Which checkpoint a run resumes from."""

from pathlib import Path

import pytest

from tunewright_api.names import ExitCode
from tunewright_trainer.checkpoint import directory
from tunewright_trainer.errors import StageError


def test_the_newest_complete_one(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    assert directory.newest(root) is None
    for name in ("step-8", "step-12", "step-x", ".partial/step-16"):
        (root / name).mkdir(parents=True)
    assert directory.newest(root) == 12


def test_a_checkpoint_that_shows_late_is_waited_for(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 5:
            directory.path_of(tmp_path, 4).mkdir(exist_ok=True)

    directory.wait_for(tmp_path, 4, 10, sleep, lambda: now[0])
    assert now[0] == 5
    with pytest.raises(StageError, match=r"cannot read .*/step-8: .* within 10 s") as caught:
        directory.wait_for(tmp_path, 8, 10, sleep, lambda: now[0])
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE
    assert now[0] == 15
