"""Exceptions get the right name."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainer.support import Job
from tunewright_api.names import ExitCode, Stage
from tunewright_api.results import TrainResult
from tunewright_trainer.errors import StageError, classify, not_yet
from tunewright_trainer.launch import (
    RENDEZVOUS_TIMEOUT_ENV,
    available_cpus,
    judge,
    rendezvous_timeout,
    wait_for_name,
    worker_command,
)
from tunewright_trainer.processes import COLLECTIVE_TIMEOUT_ENV, collective_timeout
from tunewright_trainer.rundir import RunDirectory

WORK = Path("/mnt/claims/out/.work")


def os_error(number: int, path: str) -> OSError:
    return OSError(number, "because", path)


class DistBackendError(RuntimeError):
    """Stands for torch.distributed's class of this name."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (os_error(errno.ENOSPC, f"{WORK}/a"), ExitCode.VOLUME_FULL, f"the volume of {WORK} is full"),
        (RuntimeError("No space left on device (os error 28)"), ExitCode.VOLUME_FULL, "is full: enlarge the claim"),
        (os_error(errno.EACCES, f"{WORK}/a"), ExitCode.OUTPUT_NOT_WRITABLE, f"cannot write {WORK}/a"),
        (os_error(errno.EROFS, "/mnt/claims/out"), ExitCode.OUTPUT_NOT_WRITABLE, "cannot write /mnt/claims/out"),
        (os_error(errno.EACCES, "/mnt/claims/in/x"), ExitCode.INPUT_NOT_READABLE, "cannot read /mnt/claims/in/x"),
        (os_error(errno.ENOENT, "/mnt/claims/in/x"), ExitCode.INPUT_NOT_READABLE, "it does not exist"),
        (os_error(errno.ENOTDIR, f"{WORK}/a"), ExitCode.OUTPUT_NOT_WRITABLE, "is a file: remove the file, or choose"),
        (os_error(errno.EEXIST, f"{WORK}"), ExitCode.OUTPUT_NOT_WRITABLE, f"cannot write {WORK}: it, or a directory"),
        (os_error(errno.ENOTDIR, "/mnt/claims/in/x"), ExitCode.INPUT_NOT_READABLE, "a file is where a directory is"),
        (MemoryError(), ExitCode.OUT_OF_MEMORY, "microBatchSize"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ExitCode.OUT_OF_MEMORY, "microBatchSize"),
        (RuntimeError("[gloo] Connection closed by peer [::1]:4"), ExitCode.PEER_LOST, "another process"),
        (DistBackendError("NCCL error"), ExitCode.PEER_LOST, "another process"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            ExitCode.OUT_OF_MEMORY,
            "CUBLAS_STATUS_ALLOC_FAILED",
        ),
        (
            DistBackendError("ncclUnhandledCudaError: failed.\nLast error:\nFailed to CUDA calloc async 608 bytes"),
            ExitCode.OUT_OF_MEMORY,
            "lower hyperparameters.microBatchSize",
        ),
        (KeyError("x"), ExitCode.INTERNAL, "KeyError"),
    ],
)
def test_classify(error: Exception, code: ExitCode, words: str) -> None:
    named = classify(error, [WORK], free=lambda _: 1 << 40, training=True)
    assert named.code is code
    assert words in named.message


def test_a_process_without_peers_loses_none() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert classify(refused, [], free=lambda _: 1 << 40).code is ExitCode.INTERNAL
    assert classify(refused, [], free=lambda _: 1 << 40, training=True).code is ExitCode.PEER_LOST


@pytest.mark.parametrize("text", ["10m", "", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_no_number_of_seconds_is_named(text: str) -> None:
    with pytest.raises(StageError) as caught:
        rendezvous_timeout({RENDEZVOUS_TIMEOUT_ENV: text})
    assert (caught.value.code, caught.value.message) == (
        ExitCode.INVALID_CONFIG,
        f"the environment variable TUNEWRIGHT_RENDEZVOUS_TIMEOUT is '{text}': write a number of seconds, such as 600",
    )


def test_timeouts_have_a_default_and_may_be_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rendezvous_timeout({}), rendezvous_timeout({RENDEZVOUS_TIMEOUT_ENV: "0.5"})) == (600, 0.5)
    monkeypatch.setenv(COLLECTIVE_TIMEOUT_ENV, "10m")
    with pytest.raises(StageError, match="TUNEWRIGHT_COLLECTIVE_TIMEOUT is '10m'"):
        collective_timeout()


def test_what_an_earlier_stage_writes_is_nobodys_permission() -> None:
    assert not_yet(WORK, Stage.TRAIN).message == f"cannot read {WORK}: it does not exist: run the train stage first"


def test_a_failed_write_without_errno_on_a_full_volume() -> None:
    named = classify(RuntimeError("PytorchStreamWriter failed"), [WORK], free=lambda _: 0)
    assert named.code is ExitCode.VOLUME_FULL


def test_the_name_of_rank_0_is_waited_for() -> None:
    now = [0.0]
    answers: Iterator[OSError | str] = iter([OSError(), OSError(), "10.0.0.1"])

    def resolve(host: str) -> str:
        answer = next(answers, OSError("no such name"))
        if isinstance(answer, OSError):
            raise answer
        return answer

    def sleep(seconds: float) -> None:
        now[0] += seconds

    wait_for_name("pod-0", 10, resolve, sleep, lambda: now[0])
    with pytest.raises(StageError, match=r"pod-0 .* did not resolve within 10 s") as caught:
        wait_for_name("pod-0", 10, resolve, sleep, lambda: now[0])
    assert caught.value.code is ExitCode.PEER_LOST
    assert now[0] < 25


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "want"),
    [
        (64, None, 64),
        (64, "max 100000", 64),
        (64, "150000 100000", 2),
        (64, "50000 100000", 1),
        (2, "400000 100000", 2),
    ],
)
def test_threads_follow_the_cpu_limit(affinity: int, cpu_max: str | None, want: int) -> None:
    assert available_cpus(affinity, cpu_max) == want


def test_one_process_needs_no_torchrun(job: Callable[..., Job]) -> None:
    from tunewright_api.trainer_config import Rendezvous

    alone = Rendezvous(nodes=1, processes_per_node=1, address="a")
    assert worker_command(alone, 0, Path("/c"), 60)[1:] == ["-m", "tunewright_trainer.worker", "/c"]
    gang = Rendezvous(nodes=2, processes_per_node=8, address="a")
    assert worker_command(gang, 1, Path("/c"), 60)[1:] == [
        *("-m", "tunewright_trainer.elastic", "--nnodes=2", "--node-rank=1", "--nproc-per-node=8"),
        *("--master-addr=a", "--master-port=29500", "--rdzv-conf=timeout=60", "--max-restarts=0"),
        *("--monitor-interval=0.2", "-m", "tunewright_trainer.worker", "/c"),
    ]


RESULT = TrainResult(steps=4, seconds=1)


@pytest.mark.parametrize(
    ("words", "deaths", "exit_code", "oom", "want"),
    [
        pytest.param({0: RESULT, 1: RESULT}, {}, 0, False, None, id="success"),
        pytest.param(
            {0: ExitCode.PEER_LOST, 1: ExitCode.DIVERGED},
            {},
            1,
            False,
            ExitCode.DIVERGED,
            id="an echo loses to a cause",
        ),
        pytest.param({0: ExitCode.PEER_LOST}, {}, 1, False, ExitCode.PEER_LOST, id="the other pod died"),
        pytest.param({0: ExitCode.PEER_LOST}, {1: -9}, 1, True, ExitCode.OUT_OF_MEMORY, id="killed for memory"),
        pytest.param({0: ExitCode.PEER_LOST}, {1: -9}, 1, False, ExitCode.INTERNAL, id="killed by someone"),
        pytest.param({0: ExitCode.PEER_LOST}, {1: -11}, 1, False, ExitCode.INTERNAL, id="segmentation fault"),
        pytest.param({0: ExitCode.INTERNAL}, {1: -15}, 1, False, ExitCode.INTERNAL, id="torchrun ended the others"),
        pytest.param({}, {}, -9, False, ExitCode.INTERNAL, id="the only worker was killed"),
        pytest.param({}, {}, -9, True, ExitCode.OUT_OF_MEMORY, id="the only worker was killed for memory"),
        pytest.param({}, {}, 1, False, ExitCode.INTERNAL, id="no word at all"),
    ],
)
def test_the_pod_ends_with_the_cause(
    tmp_path: Path,
    *,
    words: dict[int, TrainResult | ExitCode],
    deaths: dict[int, int],
    exit_code: int,
    oom: bool,
    want: ExitCode | None,
) -> None:
    run = RunDirectory(tmp_path)
    for rank, word in words.items():
        if isinstance(word, TrainResult):
            run.write_result(rank, word)
        else:
            run.write_error(rank, StageError(word, "…"))
    run.write_deaths(deaths)

    def verdict() -> TrainResult:
        killed = (lambda rank: StageError(ExitCode.OUT_OF_MEMORY, "…", rank)) if oom else None
        return judge(run, exit_code, oom=killed, stopped=False, node=0, processes_per_node=2)

    if want is None:
        assert verdict() == RESULT
    else:
        with pytest.raises(StageError) as caught:
            verdict()
        assert caught.value.code is want
