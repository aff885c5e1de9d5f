"""From the end of a vLLM process to an exit code and a sentence."""

import pytest

from tunewright_api.names import ExitCode
from tunewright_server.diagnosis import Exit, diagnose

ECHO = [
    "(APIServer pid=7) Traceback (most recent call last):",
    "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]

EXITS = [
    pytest.param(
        Exit(1, ["(EngineCore pid=9) ERROR 11-22 12:00:00 [core.py:1] ValueError: odd weights", *ECHO]),
        ExitCode.INTERNAL,
        "vLLM exited with code 1 without being asked to. Its last words: ValueError: odd weights",
        id="the root cause, not its echo",
    ),
    pytest.param(
        Exit(1, ["EngineDeadError"], oom_kills=1),
        ExitCode.OUT_OF_MEMORY,
        "the kernel killed vLLM for exceeding the memory limit",
        id="a worker was killed by the kernel",
    ),
    pytest.param(Exit(-9, ["loading"]), ExitCode.OUT_OF_MEMORY, "(SIGKILL), most likely", id="killed"),
    pytest.param(
        Exit(1, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", *ECHO]),
        ExitCode.OUT_OF_MEMORY,
        "raise resources.memory",
        id="a GPU is full",
    ),
    pytest.param(
        Exit(
            1,
            [
                "ValueError: Available memory on node 0 (1.0/2.0 GiB) on kv cache allocation is less than requested "
                "memory for kv (4.0 GiB)."
            ],
        ),
        ExitCode.OUT_OF_MEMORY,
        "the key-value cache does not fit: lower engine.maxModelLen",
        id="no room for the cache",
    ),
    pytest.param(
        Exit(1, ["OSError: [Errno 98] Address already in use"]), ExitCode.INTERNAL, "is taken", id="a taken port"
    ),
    pytest.param(
        Exit(1, ["OSError: [Errno 28] No space left on device"]), ExitCode.VOLUME_FULL, "/dev/shm", id="a full volume"
    ),
    pytest.param(
        Exit(
            1,
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, User-specified max_model_len (99) is greater than the derived max_model_len (8).",
                "    For further information visit https://errors.pydantic.dev",
            ],
        ),
        ExitCode.INVALID_CONFIG,
        "engine.maxModelLen exceeds what the model was made for: lower it or leave it out",
        id="a context that the model does not have",
    ),
    pytest.param(
        Exit(1, ["pydantic.ValidationError: 1 validation error for CacheConfig", "  Value error, must be odd"]),
        ExitCode.INVALID_CONFIG,
        "for CacheConfig Value error, must be odd",
        id="a refused setting, with its reason",
    ),
    pytest.param(
        Exit(
            0,
            [
                "(APIServer pid=7) ERROR 11-22 13:04:24 [async_llm.py:906] AsyncLLM output_handler failed.",
                "(APIServer pid=7) ERROR 11-22 13:04:24 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: "
                "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                "INFO:     Application shutdown complete.",
            ],
        ),
        ExitCode.INTERNAL,
        "vLLM's engine process died without saying why",
        id="the engine's process vanished",
    ),
    pytest.param(
        Exit(1, ["the disk is on fire", "INFO:     Finished server process [7]", "x.py:1: UserWarning: leaked"]),
        ExitCode.INTERNAL,
        "Its last words: the disk is on fire",
        id="not the noise of every end",
    ),
    pytest.param(Exit(2, ["error: bad"]), ExitCode.INVALID_CONFIG, "refuses its arguments", id="a usage error"),
    pytest.param(Exit(0, []), ExitCode.INTERNAL, "exited with code 0 without being asked to", id="a silent end"),
    pytest.param(Exit(-11, ["x" * 9999]), ExitCode.INTERNAL, "was ended by SIGSEGV", id="a crash of native code"),
]


@pytest.mark.parametrize(("stopped", "code", "message"), EXITS)
def test_diagnosis(stopped: Exit, code: ExitCode, message: str) -> None:
    failure = diagnose(stopped)
    assert failure.code is code
    assert message in failure.message
    assert len(failure.message) < 1024
