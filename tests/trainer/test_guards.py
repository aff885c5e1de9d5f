"""The guards: each on what it is there for, and on what it must let pass."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.support import REPO, Job, free_port, make_job, step_record, write_dataset
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_api.training_guards import Divergence
from tunewright_trainer.errors import StageError
from tunewright_trainer.guards import leak, oom
from tunewright_trainer.guards.divergence import DivergenceGuard, Smoothed
from tunewright_trainer.guards.leak import LeakGuard, growth
from tunewright_trainer.guards.nccl import Added, Hardware, observe_hardware, tune
from tunewright_trainer.guards.oom import Usage, out_of_memory
from tunewright_trainer.guards.watchdog import Watchdog
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.steps import EVAL_LOSS, StepRecord

MIB = 2**20
GIB = 2**30


def record(step: int, loss: float = 1.0, memory: int = GIB, total: int = 1000) -> StepRecord:
    return step_record(step, total_steps=total, loss=loss, memory_bytes=memory, peak_memory_bytes=memory)


# --- divergence -------------------------------------------------------------------------------


def watch(losses: Sequence[float], rule: Divergence | None) -> tuple[int, StageError] | None:
    """The step at which the guard ends the run, and why."""
    guard = DivergenceGuard(rule)
    for step, loss in enumerate(losses, start=1):
        try:
            guard.on_step(record(step, loss))
        except StageError as error:
            return step, error
    return None


def stopped_at(losses: Sequence[float], rule: Divergence | None) -> int | None:
    """The step at which the guard ends the run."""
    ended = watch(losses, rule)
    return ended[0] if ended else None


RULE = Divergence(factor=2.0, patience=3)


@pytest.mark.parametrize(
    ("losses", "rule", "want"),
    [
        pytest.param([1, float("nan")], None, 2, id="a loss that is no number ends every run"),
        pytest.param([1, float("inf")], RULE, 2, id="so does infinity"),
        pytest.param([1.0] * 5 + [1000.0] * 50, None, None, id="nothing else does without a rule"),
        pytest.param([4, 3, 2, 1] + [1.0] * 50, RULE, None, id="a falling loss goes on"),
        pytest.param([1.0] * 10 + [3.0] + [1.0] * 40, RULE, None, id="one bad batch is smoothed away"),
        pytest.param([1.0] * 10 + [25.0] + [1.0] * 40, RULE, 13, id="a spike that takes long to forget does not pass"),
        pytest.param([1.0] * 10 + [5.0] * 40, RULE, 14, id="a loss that stays up ends the run after patience"),
        pytest.param([0.1 * 1.02**n for n in range(200)], RULE, 46, id="so does one that creeps up"),
    ],
)
def test_the_run_ends_when_the_loss_leaves_its_minimum(
    losses: list[float], rule: Divergence | None, want: int | None
) -> None:
    assert stopped_at(losses, rule) == want


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_held_out_loss_that_is_no_number_ends_every_run(loss: float) -> None:
    with pytest.raises(StageError) as caught:
        DivergenceGuard(None).on_step(step_record(4, figures={EVAL_LOSS: loss}))
    assert caught.value.code is ExitCode.DIVERGED
    assert caught.value.message == (
        f"the loss on held-out records became {loss} at step 4: "
        "lower hyperparameters.learningRate, or raise warmupRatio"
    )


def test_the_reason_names_the_minimum_and_the_remedy() -> None:
    ended = watch([1.0, 9.0], Divergence(factor=2.0, patience=1))
    assert ended is not None
    assert ended[1].code is ExitCode.DIVERGED
    assert ended[1].message == (
        "the smoothed loss is 5.211 at step 2, after 1 step above 2 x its minimum of 1 at step 1: lower "
        "hyperparameters.learningRate, or raise warmupRatio, or set hyperparameters.divergence.factor higher"
    )


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_ends_a_run_unless_its_loss_is_scaled(norm: float) -> None:
    step = step_record(3, grad_norm=norm)
    DivergenceGuard(None, scales_loss=True).on_step(step)
    with pytest.raises(StageError, match=f"the norm of the gradient became {norm} at step 3: lower ") as caught:
        DivergenceGuard(None).on_step(step)
    assert caught.value.code is ExitCode.DIVERGED


def test_a_resume_does_not_forget_the_minimum_and_rank_0_tells_the_others() -> None:
    past = [record(step, loss) for step, loss in enumerate([1.0, 1.0, 9.0, 9.0], start=1)]
    told: list[int] = []

    def tell(number: int) -> int:
        told.append(number)
        return number

    first = DivergenceGuard(RULE, past=past, from_first=tell)
    other = DivergenceGuard(RULE, from_first=lambda _: told[-1])
    with pytest.raises(StageError, match="at step 5, after 3 steps above 2 x its minimum of 1 at step 1: "):
        first.on_step(record(5, 9.0))
    with pytest.raises(StageError, match="rank 0 found the smoothed loss above 2 x its minimum for 3 steps at step 5"):
        other.on_step(record(5, 9.0))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_the_smoothed_loss_stays_within_what_it_has_seen(losses: list[float]) -> None:
    smoothed = Smoothed()
    for end, loss in enumerate(losses, start=1):
        assert min(losses[:end]) * 0.999 <= smoothed.add(loss) <= max(losses[:end]) * 1.001


@given(st.floats(0.01, 100), st.integers(1, 300))
def test_a_constant_loss_never_ends_a_run(loss: float, steps: int) -> None:
    assert stopped_at([loss] * steps, Divergence(factor=1.01, patience=1)) is None


BROKEN_GRADIENT = """
import os, sys

if sys.orig_argv[1:3] != ["-m", "tunewright_trainer"] and os.environ.get("RANK") == "1":
    from tunewright_trainer.objectives.supervised import Supervised

    loss, calls = Supervised.loss, [0]

    def broken(self, model, batch):
        value = loss(self, model, batch)
        calls[0] += 1
        if calls[0] == 3:
            value.register_hook(lambda gradient: gradient * float("nan"))
        return value

    Supervised.loss = broken
"""
"""A worker of rank 1 whose third gradient is no number, although its loss is one."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_broken_gradient_is_never_saved(job: Callable[..., Job], tmp_path: Path) -> None:
    """DeepSpeed leaves such a step out and would go on."""
    run = job(
        method={"full": {}},
        distributed={"deepspeed": {"zeroStage": 2}},
        checkpoint={"everySteps": 1},
        hyperparameters={"maxSteps": 6, "microBatchSize": 2},
    )
    run.config["rendezvous"]["processesPerNode"] = 2
    run.must("prepare")
    (tmp_path / "sitecustomize.py").write_text(BROKEN_GRADIENT)
    finished = run.run("train", env={"PYTHONPATH": f"{tmp_path}:{REPO / 'crds'}:{REPO / 'trainer_image'}"})
    assert finished.code == ExitCode.DIVERGED, finished.describe()
    assert finished.message["message"].startswith("the norm of the gradient became inf at step 3: ")
    steps = {path.name for path in (run.work / "checkpoints").glob("step-*")}
    assert steps
    assert steps <= {"step-1", "step-2"}


# --- leaks ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=32), st.integers(1, 10**6))
def test_growth_is_the_slope_of_a_line_and_never_negative(noise: list[int], slope: int) -> None:
    assert growth([(step, GIB + slope * step) for step in range(len(noise))]) == slope
    assert growth(list(enumerate(noise))) >= 0


@pytest.mark.parametrize(
    ("memory", "warned"),
    [
        pytest.param(lambda step: GIB + MIB * step, True, id="a megabyte each step"),
        pytest.param(lambda step: GIB + (50 * MIB if step % 7 == 0 else 0), False, id="longer batches now and then"),
        pytest.param(lambda step: GIB + (GIB if step > 100 else 0), False, id="a jump, such as a first evaluation"),
        pytest.param(lambda step: GIB + MIB * min(step, leak.WARM_UP), False, id="only the warm-up grows"),
        pytest.param(lambda step: GIB + 100 * step, False, id="too little to matter"),
    ],
)
def test_a_leak_is_warned_of(memory: Any, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    guard = LeakGuard()
    for step in range(1, 500):
        guard.on_step(record(step, memory=memory(step)))
    assert bool(caplog.records) == warned
    if warned:
        assert caplog.records[0].getMessage() == (
            "memory grows by 1.00 MiB per step: the last step would hold 2.0 GiB; a checkpoint and a restart free it"
        )


# --- watchdog ---------------------------------------------------------------------------------


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_watchdog_waits_for_the_slowest_phase_so_far() -> None:
    clock = Clock()
    watchdog = Watchdog(3, limit=10, on_hang=lambda hang: None, clock=clock)
    watchdog.enter("step", 0)
    clock.now = 9
    assert watchdog.check() is None
    watchdog.enter("agree", 0)  # the step took 9 s: five times that is 45
    clock.now = 9 + 44
    assert watchdog.check() is None
    clock.now = 9 + 46
    hang = watchdog.check()
    assert hang is not None
    assert (hang.code, hang.rank) == (ExitCode.PEER_LOST, 3)
    assert "rank 3 stood still for 46 s in phase agree of step 1, at check (" in hang.message


@pytest.mark.parametrize("phase", ["step", "evaluate"])
def test_each_micro_batch_shows_that_a_phase_goes_on_whatever_the_cpu_does(phase: str) -> None:
    clock, cpu = Clock(), Clock()
    watchdog = Watchdog(0, limit=10, on_hang=lambda hang: None, clock=clock, cpu=cpu)
    watchdog.enter(phase, 0)
    for count, _ in enumerate(watchdog.follow(["a", "b", "c"]), start=1):
        clock.now = cpu.now = 9.0 * count
        assert watchdog.check() is None
    assert clock.now == 27
    # NCCL waits with a busy CPU.
    clock.now = cpu.now = 27 + 46
    hang = watchdog.check()
    assert hang is not None
    assert f"in phase {phase} of step 1" in hang.message


def test_a_process_that_gets_on_may_load_as_long_as_it_needs() -> None:
    clock, cpu = Clock(), Clock()
    watchdog = Watchdog(2, limit=10, on_hang=lambda hang: None, clock=clock, cpu=cpu)
    watchdog.enter("setup", 0)
    for second in range(1, 100):
        clock.now, cpu.now = second, second * 0.2
        assert watchdog.check() is None
    clock.now = 99 + 9
    assert watchdog.check() is None
    clock.now = 99 + 11
    hang = watchdog.check()
    assert hang is not None
    assert "rank 2 stood still for 11 s in phase setup of step 1, at check (" in hang.message


def test_saving_may_take_as_long_as_the_disk_needs() -> None:
    clock = Clock()
    watchdog = Watchdog(0, limit=10, on_hang=lambda hang: None, clock=clock)
    watchdog.enter("save", 7)
    clock.now = 1e6
    assert watchdog.check() is None


# --- two processes over gloo ------------------------------------------------------------------


def start_pair(case: str, directory: Path) -> list[subprocess.Popen[str]]:
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, str(REPO / "tests/trainer/guard_run.py"), case, str(rank), port, str(directory)],
            env={
                **os.environ,
                "PYTHONPATH": f"{REPO / 'crds'}:{REPO / 'trainer_image'}",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]


def codes(pair: list[subprocess.Popen[str]]) -> list[int]:
    return [process.wait(timeout=300) for process in pair]


def messages(directory: Path) -> dict[int, str]:
    return {one.rank: one.error.message for one in RunDirectory(directory).outcomes() if one.error}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("case", "where"),
    [
        pytest.param("hang", "phase agree of step 2, at all_reduce (tunewright_trainer/processes.py:", id="in a step"),
        pytest.param("load", "phase setup of step 1, at all_reduce (tunewright_trainer/processes.py:", id="in setup"),
    ],
)
def test_a_hung_collective_ends_with_its_rank_and_operation_before_its_timeout(
    tmp_path: Path, case: str, where: str
) -> None:
    pair = start_pair(case, tmp_path)
    try:
        assert pair[0].wait(timeout=300) == ExitCode.PEER_LOST
    finally:
        pair[1].kill()
        pair[1].wait()
    told = messages(tmp_path)[0]
    assert told.startswith("rank 0 stood still for "), told
    assert where in told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_collective_test_measures_what_works(tmp_path: Path) -> None:
    pair = start_pair("works", tmp_path)
    assert codes(pair) == [0, 0]
    for rank in (0, 1):
        seconds = json.loads((tmp_path / f"seconds-{rank}").read_text())
        assert set(seconds) == {"meet", "allReduce", "broadcast"}
        assert min(seconds.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rank_whose_values_arrive_wrong_is_named_by_all(tmp_path: Path) -> None:
    pair = start_pair("garbles", tmp_path)
    assert codes(pair) == [ExitCode.GPU_UNUSABLE] * 2
    told = messages(tmp_path)
    assert set(told) == {0, 1}
    assert all(one.startswith("the test all-reduce gave wrong values for rank 1: ") for one in told.values())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    pair = start_pair("absent", tmp_path)
    assert codes(pair) == [ExitCode.PEER_LOST, 0]
    assert "not all 2 processes came to the collective test within 1 s" in messages(tmp_path)[0]
    assert "1" in messages(tmp_path)[0].partition("(")[2]


# --- out of memory ----------------------------------------------------------------------------


def test_out_of_memory_names_the_peak_and_the_three_settings_that_help_most(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(
        tmp_path,
        tiny_model,
        method={"full": {}},
        hyperparameters={"microBatchSize": 8, "sequenceLength": 512},
        distributed={"deepspeed": {"zeroStage": 1}},
    )
    job.config["rendezvous"].update(processesPerNode=2)
    config = TrainerConfig.model_validate(job.config)
    error = out_of_memory(config, Usage("the GPU", 78 * GIB, 79 * GIB, gpu=True), rank=3)
    assert (error.code, error.rank) == (ExitCode.OUT_OF_MEMORY, 3)
    head, _, advice = error.message.partition(". What would help most: ")
    assert head == "out of memory on rank 3: 78.0 GiB of 79.0 GiB of the GPU were in use"
    *settings, more = advice.split("; ")
    assert [one.partition(" (about")[0] for one in settings] == [
        "hyperparameters.gradientCheckpointing: true",
        "hyperparameters.sequenceLength: 256",
        "hyperparameters.microBatchSize: 4 with gradientAccumulationSteps: 2",
    ]
    assert more == "or a GPU with more memory"


def test_an_unknown_model_still_gets_advice(tmp_path: Path) -> None:
    config = TrainerConfig.model_validate(make_job(tmp_path, tmp_path / "nothing").config)
    error = out_of_memory(config, Usage("the container", None, None, gpu=False))
    assert "the memory of the container was not enough" in error.message
    assert len(oom.what_helps(config, gpu=False)) == 3


THREE_SETTINGS = (
    r"What would help most: hyperparameters\.[^;]+; hyperparameters\.[^;]+; hyperparameters\.[^;]+; or more"
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_allocation_that_fails_ends_with_the_peak_and_three_settings(job: Callable[..., Job]) -> None:
    run = job(hyperparameters={"microBatchSize": 1024, "precision": "FP32"})
    write_dataset(Path(run.config["dataset"]["path"]), 1200)
    run.must("prepare")
    pod = run.start("train")
    # The worker inherits it: enough to load the model, too little for a step.
    resource.prlimit(pod.process.pid, resource.RLIMIT_DATA, (1250 * MIB, 1250 * MIB))
    finished = pod.finish()
    assert finished.code == ExitCode.OUT_OF_MEMORY, finished.describe()
    told = finished.message["message"]
    assert re.match(r"out of memory on rank 0: [01]\.\d GiB( of \d+\.\d GiB)? of the container were in use\. ", told)
    assert re.search(THREE_SETTINGS, told), told


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A group of processes whose memory the kernel limits; it lies where a container sees its own root."""
    root = Path("/sys/fs/cgroup")
    parent = root if (root / "cgroup.controllers").exists() else root / "memory"
    group = parent / f"tunewright-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("cgroups cannot be made here")
    limits = [file for name in ("memory.max", "memory.limit_in_bytes") if (file := group / name).exists()]
    if not limits:
        group.rmdir()
        pytest.skip("this cgroup has no memory controller")
    limits[0].write_text(str(300 * MIB))
    yield group
    group.rmdir()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [1, 2], ids=["the only worker", "one of two workers"])
def test_a_worker_that_the_kernel_kills_for_memory_is_out_of_memory(
    job: Callable[..., Job], memory_cgroup: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int
) -> None:
    run = job(distributed={"ddp": {}})
    run.config["rendezvous"]["processesPerNode"] = processes
    run.must("prepare")
    # As a container runtime does: the group is what the container finds at its place in /sys/fs/cgroup.
    container = tmp_path / "container"
    container.write_text(
        f"""#!/bin/sh
        echo $$ > {memory_cgroup}/cgroup.procs
        set -- {sys.executable} "$@"
        exec unshare --mount sh -c 'mount --bind {memory_cgroup} {memory_cgroup.parent} && exec "$@"' sh "$@"
        """
    )
    container.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(container))
    finished = run.run("train")
    assert finished.code == ExitCode.OUT_OF_MEMORY, finished.describe()
    told = finished.message["message"]
    assert re.match(r"out of memory on rank [01]: 0\.3 GiB of 0\.3 GiB of the container were in use\. ", told)
    assert re.search(THREE_SETTINGS, told), told


# --- NCCL -------------------------------------------------------------------------------------

CARDS = tuple(f"mlx5_{number}" for number in range(8))


@pytest.mark.parametrize(
    ("environment", "hardware", "want"),
    [
        pytest.param({}, Hardware(nodes=4, gpus=0), {}, id="no GPU, nothing to tune"),
        pytest.param(
            {},
            Hardware(nodes=1, gpus=1),
            {"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
            id="one GPU only needs the allocator",
        ),
        pytest.param(
            {},
            Hardware(nodes=2, gpus=8, interfaces=("eth0", "lo"), adapters=CARDS),
            {
                "NCCL_DEBUG": "WARN",
                "NCCL_IB_HCA": "=mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_7",
                "NCCL_IB_TIMEOUT": "22",
                "NCCL_SOCKET_IFNAME": "=eth0",
                "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            },
            id="two nodes of 8 A100 with InfiniBand",
        ),
        pytest.param(
            {"NCCL_IB_HCA": "mlx5_0", "NCCL_DEBUG": "INFO", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"},
            Hardware(nodes=2, gpus=8, interfaces=("eth0",), adapters=CARDS),
            {"NCCL_IB_TIMEOUT": "22", "NCCL_SOCKET_IFNAME": "=eth0"},
            id="what the user set stays, under an older name, too",
        ),
        pytest.param(
            {},
            Hardware(nodes=2, gpus=8, interfaces=("ens5",)),
            {
                "NCCL_DEBUG": "WARN",
                "NCCL_IB_DISABLE": "1",
                "NCCL_NSOCKS_PERTHREAD": "4",
                "NCCL_SOCKET_NTHREADS": "4",
                "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            },
            id="two nodes without InfiniBand",
        ),
    ],
)
def test_the_environment_of_nccl(environment: dict[str, str], hardware: Hardware, want: dict[str, str]) -> None:
    tuned = tune(environment, hardware)
    assert {name: setting.value for name, setting in tuned.items()} == want
    assert all(setting.reason for setting in tuned.values())
    assert isinstance(next(iter(tuned.values()), Added("", "")), Added)


def test_the_hardware_is_read_from_the_pods_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    for name, state in (("mlx5_0", "4: ACTIVE\n"), ("mlx5_1", "1: DOWN\n")):
        port = tmp_path / "sys/class/infiniband" / name / "ports/1"
        port.mkdir(parents=True)
        (port / "state").write_text(state)
    (tmp_path / "sys/class/net/eth0").mkdir(parents=True)
    assert observe_hardware(2, tmp_path) == Hardware(2, 2, ("eth0",), ("mlx5_0",))
