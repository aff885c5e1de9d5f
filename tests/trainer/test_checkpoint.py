"""Checkpoints: which one a run resumes from, what is in it, and what happens to a save that fails."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tunewright_api.names import ExitCode
from tunewright_trainer.checkpoint import directory
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.checkpoint.directory import Description
from tunewright_trainer.checkpoint.staging import Staging
from tunewright_trainer.errors import StageError
from tunewright_trainer.processes import Processes

RUN = Description(strategy="Single", processes=1, global_batch=4, records=40, seed=42)


def checkpointer(root: Path, keep_last: int = 2, run: Description = RUN) -> Checkpointer:
    directory.clean(root)
    alone = Processes(torch.device("cpu"))
    return Checkpointer(root, keep_last, alone, state_rank=0, description=run, completed=directory.newest(root))


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


def test_what_is_saved_is_the_state_at_the_step_whatever_training_does_next(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    state = {"model": {"weight": weight}, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "lr": 0.1}}
    saving = checkpointer(tmp_path)
    saving.save(3, state)
    weight.zero_()
    saving.wait()
    assert saving.completed == 3
    assert sorted(path.name for path in (tmp_path / "step-3").iterdir()) == ["checkpoint.json", "rank-0.pt"]
    loaded = checkpointer(tmp_path).load(3)
    assert loaded["model"]["weight"].tolist() == [0, 1, 2, 3]
    assert loaded["optimizer"] == {"state": {0: {"step": torch.tensor(3.0)}}, "lr": 0.1}


def test_the_oldest_ones_go(tmp_path: Path) -> None:
    saving = checkpointer(tmp_path, keep_last=2)
    for step in (2, 4, 6):
        saving.save(step, {})
    saving.wait()
    assert directory.complete_steps(tmp_path) == [4, 6]
    assert list((tmp_path / directory.PARTIAL).iterdir()) == []


def test_random_numbers_go_on(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(numpy.random.random()), float(torch.rand(()))]

    saving = checkpointer(tmp_path)
    saving.save(1, {})
    want = draw()
    saving.wait()
    draw()
    saving.load(1)
    assert draw() == want


def test_a_save_that_fails_ends_the_run_at_the_next_step(tmp_path: Path) -> None:
    saving = checkpointer(tmp_path)
    (tmp_path / directory.PARTIAL).rmdir()
    (tmp_path / directory.PARTIAL).write_text("in the way")
    saving.save(1, {})
    with pytest.raises(OSError, match="Not a directory"):
        saving.wait()
    assert saving.completed is None
    saving.poll()


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(None, "another version of the trainer image wrote it", id="no description"),
        pytest.param(
            {**json.loads(RUN.to_json()), "processes": 2, "records": 39},
            r"belongs to another run \(processes was 2 and is 1; records was 39 and is 40\)",
            id="another number of processes and other data",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, content: dict[str, Any] | None, want: str) -> None:
    step = directory.path_of(tmp_path, 7)
    step.mkdir()
    if content is not None:
        (step / directory.DESCRIPTION).write_text(json.dumps(content))
    with pytest.raises(StageError, match=want) as caught:
        checkpointer(tmp_path).load(7)
    assert caught.value.code is ExitCode.INVALID_CONFIG


def test_staged_tensors_are_copies_in_memory_that_is_used_again() -> None:
    staging = Staging()
    live = torch.ones(3)
    first = staging.copy({"a": [live, 5], "b": (live[:2], None)})
    live.fill_(2)
    assert first["a"][0].tolist() == [1, 1, 1]
    assert (first["a"][1], first["b"][1]) == (5, None)
    second = staging.copy({"a": [live, 6]})
    assert second["a"][0].tolist() == [2, 2, 2]
    assert second["a"][0].data_ptr() == first["a"][0].data_ptr()
    larger = staging.copy({"a": [torch.ones(4), 6]})
    assert larger["a"][0].tolist() == [1, 1, 1, 1]


def test_a_state_larger_than_memory_is_staged_on_a_disk_one_part_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    @contextmanager
    def part(number: int) -> Iterator[dict[str, Any]]:
        assert not inside
        inside.append(number)
        yield {"weight": torch.full((2, 3), float(number)), "step": 5}
        inside.clear()

    disk = tmp_path / "disk"
    staging = Staging(disk)
    first = staging.copy({"groups": [part(1), part(2)]})
    assert [group["weight"].tolist() for group in first["groups"]] == [[[1.0] * 3] * 2, [[2.0] * 3] * 2]
    assert first["groups"][1]["step"] == 5
    second = staging.copy({"groups": [part(3), part(4)]})
    assert second["groups"][0]["weight"].data_ptr() == first["groups"][0]["weight"].data_ptr()
    assert str(disk) in Path("/proc/self/maps").read_text()
    assert list(disk.iterdir()) == [], "nothing is left behind however the run ends"
