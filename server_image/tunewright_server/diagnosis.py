"""Why did vLLM stop? From its exit code, its last lines and the kernel's OOM counter to one sentence. Pure."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_api.names import ExitCode
from tunewright_server.failures import ServerError

_LINES_SHOWN = 4
_LINE_LENGTH = 160
_USAGE_ERROR = 2  # argparse


@dataclass(frozen=True)
class Exit:
    """What is known of a vLLM process that stopped without being asked to."""

    code: int  # as subprocess gives it: negative for a signal
    lines: Sequence[str]  # the end of its output, oldest first
    oom_kills: int = 0  # processes of this container that the kernel killed for memory since vLLM started


@dataclass(frozen=True)
class _Cause:
    pattern: re.Pattern[str]
    code: ExitCode
    message: str


def _cause(pattern: str, code: ExitCode, message: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), code, message)


_OUT_OF_MEMORY = (
    "raise resources.memory, or lower engine.maxModelLen or engine.cpuKVCacheGiB "
    "(on a GPU: use more of them, or a smaller model)"
)

# The first that matches any line decides; the more special ones stand first.
_CAUSES = (
    _cause(
        r"address already in use",
        ExitCode.INTERNAL,
        "the port of the API is taken by another process of this pod: remove the container that listens on it",
    ),
    _cause(
        r"larger than the available KV cache memory|No available memory for the cache blocks|"
        r"is less than requested memory for kv|less than desired GPU memory utilization",
        ExitCode.OUT_OF_MEMORY,
        "the key-value cache does not fit: lower engine.maxModelLen, or raise engine.cpuKVCacheGiB with "
        "resources.memory (on a GPU: engine.gpuMemoryUtilization, or more GPUs)",
    ),
    _cause(
        r"out of memory|OutOfMemoryError|MemoryError|std::bad_alloc|can't allocate memory|cannot allocate memory",
        ExitCode.OUT_OF_MEMORY,
        f"vLLM ran out of memory: {_OUT_OF_MEMORY}",
    ),
    _cause(
        r"no space left on device",
        ExitCode.VOLUME_FULL,
        "a volume of the pod is full: give /tmp and /dev/shm more room",
    ),
    _cause(
        r"max_model_len .* is greater than the derived max_model_len",
        ExitCode.INVALID_CONFIG,
        "engine.maxModelLen exceeds what the model was made for: lower it or leave it out",
    ),
    _cause(
        r"model architectures .* (are not supported|failed to be inspected)|is not supported for now|"
        r"does not recognize this architecture",
        ExitCode.INVALID_CONFIG,
        "this version of vLLM cannot serve the model's architecture: choose a base model that vLLM supports",
    ),
    _cause(
        r"Unrecognized model in|should have a `model_type`",
        ExitCode.INVALID_CONFIG,
        "the artifact holds no model that vLLM recognises (config.json without model_type): train or register it again",
    ),
    _cause(
        r"validation errors? for \w*Config",
        ExitCode.INVALID_CONFIG,
        "vLLM refuses a setting: correct spec.engine",
    ),
)

# "(EngineCore pid=7) ERROR 11-22 12:00:00 [core.py:1] " before what was said.
_PREFIX = re.compile(r"^(\(\S+ pid=\d+\) )?((ERROR|WARNING|INFO|DEBUG) [\d-]+ [\d:]+ \[[^\]]+\] ?)?")
_EXCEPTION = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Exit)\b")
# Said by the parent of the process that knows the cause.
_ECHO = re.compile(r"root cause above|Engine core initialization failed|EngineDeadError")
_ENGINE_DIED = re.compile(r"\bEngineDeadError\b")
# What is printed on every way out.
_NOISE = re.compile(r"^INFO:|\b\w*Warning: |^warnings\.warn|^Traceback|^[\^~]+$|^File \"")


def diagnose(stopped: Exit) -> ServerError:
    """The failure that names the cause, what to do, and the lines that show it."""
    lines = [_PREFIX.sub("", line).strip() for line in stopped.lines]
    shown = _tail(lines)
    if stopped.oom_kills:
        return ServerError(
            ExitCode.OUT_OF_MEMORY, f"the kernel killed vLLM for exceeding the memory limit: {_OUT_OF_MEMORY}"
        )
    for cause in _CAUSES:
        if any(cause.pattern.search(line) for line in lines):
            return ServerError(cause.code, f"{cause.message}. {shown}")
    if stopped.code == -signal.SIGKILL:
        return ServerError(
            ExitCode.OUT_OF_MEMORY,
            f"vLLM was killed (SIGKILL), most likely for exceeding the memory limit: {_OUT_OF_MEMORY}. {shown}",
        )
    if stopped.code == _USAGE_ERROR:
        return ServerError(ExitCode.INVALID_CONFIG, f"vLLM refuses its arguments: correct spec.engine. {shown}")
    if any(map(_ENGINE_DIED.search, lines)) and not _exceptions(lines):
        return ServerError(
            ExitCode.INTERNAL,
            "vLLM's engine process died without saying why: it was killed, or crashed in native code. The log of the "
            "node's kernel tells which",
        )
    return ServerError(ExitCode.INTERNAL, f"vLLM {_ended(stopped.code)} without being asked to. {shown}")


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _exceptions(lines: Sequence[str]) -> list[str]:
    """Lines that name an exception, without those that only repeat that there was one."""
    return [line for line in lines if _EXCEPTION.match(line) and not _ECHO.search(line)]


def _tail(lines: Sequence[str]) -> str:
    """The line that names the exception if there is one, else the last lines, cut."""
    said = [line for line in lines if line and not _NOISE.search(line)]
    if exceptions := _exceptions(said):
        words = exceptions[-1]
        # pydantic writes what is wrong on the next line.
        if words.endswith("Config"):
            words = " ".join([words, *said[said.index(words) + 1 :][:1]])
        return f"Its last words: {words[: 3 * _LINE_LENGTH]}"
    if not said:
        return "It said nothing."
    return "Its last words: " + " | ".join(line[:_LINE_LENGTH] for line in said[-_LINES_SHOWN:])
