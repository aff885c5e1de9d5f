"""Checkpoints: which one a run resumes from, what is in it, and what happens to a save that fails."""

import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.trainer.support import Job
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.checkpoint import directory
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.checkpoint.describe import describe
from tunewright_trainer.checkpoint.directory import Description
from tunewright_trainer.checkpoint.resume import agree
from tunewright_trainer.checkpoint.staging import Staging
from tunewright_trainer.errors import StageError
from tunewright_trainer.layout import Layout
from tunewright_trainer.parallel.single import Single
from tunewright_trainer.plan import plan_run
from tunewright_trainer.processes import Processes

RUN = Description(
    strategy="Single",
    processes=1,
    global_batch=4,
    records=40,
    seed=42,
    model="pvc://models/tiny",
    dataset="sha256:1",
    objective="{}",
    method='{"full":{}}',
    optimizer="AdamW",
    precision="FP32",
)

ALONE = Processes(torch.device("cpu"))


def checkpointer(root: Path, keep_last: int = 2, run: Description = RUN) -> Checkpointer:
    directory.clean(root)
    return Checkpointer(root, keep_last, ALONE, state_rank=0, description=run, completed=directory.newest(root))


def test_the_newest_complete_one(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    assert directory.newest(root) is None
    for name in ("step-8", "step-12", "step-x", ".partial/step-16"):
        (root / name).mkdir(parents=True)
        (root / name / directory.DESCRIPTION).write_text(RUN.to_json({}))
    assert directory.newest(root) == 12


def test_a_checkpoint_that_shows_late_is_waited_for(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 5:
            directory.path_of(tmp_path, 4).mkdir(exist_ok=True)
        if now[0] >= 6:
            (tmp_path / "step-4" / directory.DESCRIPTION).write_text(RUN.to_json({}))

    directory.wait_for(tmp_path, 4, 10, sleep, lambda: now[0])
    assert now[0] == 6
    with pytest.raises(StageError, match=r"cannot read .*/step-8: .* within 10 s") as caught:
        directory.wait_for(tmp_path, 8, 10, sleep, lambda: now[0])
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE
    assert now[0] == 16


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


def test_a_checkpoint_of_another_run_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    saving = checkpointer(tmp_path)
    saving.save(7, {})
    saving.wait()
    other = replace(RUN, processes=2, method='{"lora":{"rank":4}}', precision="BF16")
    with pytest.raises(StageError) as caught:
        checkpointer(tmp_path, run=other).load(7)
    assert (caught.value.code, caught.value.message) == (
        ExitCode.INVALID_CONFIG,
        f'{tmp_path}/step-7 belongs to another run (processes was 1 and is 2; method was {{"full":{{}}}} and is '
        '{"lora":{"rank":4}}; precision was FP32 and is BF16): go back to what was, or '
        f"remove {tmp_path} to begin anew",
    )


def cut(step: Path) -> None:
    file = step / "rank-0.pt"
    os.truncate(file, file.stat().st_size // 2)


DAMAGES = [
    pytest.param(cut, r"step-6/rank-0.pt has \d+ of \d+ bytes", id="a file that is cut"),
    pytest.param(lambda step: (step / "rank-0.pt").write_bytes(b""), "has 0 of", id="a file that is empty"),
    pytest.param(lambda step: (step / "rank-0.pt").unlink(), "step-6/rank-0.pt is missing", id="no file"),
    pytest.param(lambda step: (step / "checkpoint.json").unlink(), "has no checkpoint.json", id="no description"),
    pytest.param(
        lambda step: (step / "checkpoint.json").write_text("{"), "does not say what belongs", id="half a description"
    ),
]


@pytest.mark.parametrize(("damage", "why"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_but_not_all_progress(
    tmp_path: Path, damage: Callable[[Path], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    saving = checkpointer(tmp_path, keep_last=2)
    for step in (4, 6):
        saving.save(step, {"at": step})
    saving.wait()
    damage(tmp_path / "step-6")
    assert directory.newest(tmp_path) == agree(tmp_path, ALONE) == 4
    (told,) = caplog.messages
    assert re.search(f"{why}.*: it is now damaged-6, and training goes on from step 4$", told)
    assert checkpointer(tmp_path).load(4) == {"at": 4}
    assert directory.complete_steps(tmp_path) == [4], "a damaged one must not count as one of keepLast"

    cut(tmp_path / "step-4")
    with pytest.raises(
        StageError, match=r"no checkpoint in .* is whole \(step-4/rank-0.pt has .* begin anew"
    ) as caught:
        agree(tmp_path, ALONE)
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE


def test_damaged_content_is_said_with_what_to_remove(tmp_path: Path) -> None:
    saving = checkpointer(tmp_path)
    for step in (4, 6):
        saving.save(step, {})
    saving.wait()
    file = tmp_path / "step-6" / "rank-0.pt"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(StageError) as caught:
        checkpointer(tmp_path).load(6)
    assert (caught.value.code, caught.value.message) == (
        ExitCode.INPUT_NOT_READABLE,
        f"the content of {file} is damaged: remove {file.parent} to go on from step 4",
    )


def test_a_checkpoint_is_on_the_disk_before_the_one_before_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = checkpointer(tmp_path, keep_last=1)
    saving.save(3, {})
    saving.wait()
    synced: list[tuple[str, list[int]]] = []

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path)
        synced.append((str(name), directory.complete_steps(tmp_path)))

    monkeypatch.setattr(os, "fsync", fsync)
    saving.save(5, {})
    saving.wait()
    assert {name for name, steps in synced if steps == [3]} == {
        f".partial/step-5{name}" for name in ("", "/rank-0.pt", "/checkpoint.json")
    }
    assert synced[-1] == (".", [3, 5])
    assert directory.complete_steps(tmp_path) == [5]


def test_what_decides_the_state_is_described(job: Callable[..., Job]) -> None:
    def described(**overrides: Any) -> Description:
        made = job(**overrides)
        config = TrainerConfig.model_validate(made.config)
        layout = Layout(config)
        layout.dataset.mkdir(parents=True, exist_ok=True)
        layout.train_records.write_bytes(b"0123")
        plan = plan_run(config.hyperparameters, 36, 1)
        return describe(config, plan, Single(torch.device("cpu"), nullcontext, scales_loss=False), ALONE)

    first = described(distributed={"deepspeed": {"zeroStage": 1}})
    second = described(
        distributed={"deepspeed": {"zeroStage": 2}},
        hyperparameters={"optimizer": "AdamW8bit", "precision": "BF16"},
        method={"full": {}},
    )
    before, after = asdict(first), asdict(second)
    assert {name for name in before if before[name] != after[name]} == {"strategy", "optimizer", "precision", "method"}


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
