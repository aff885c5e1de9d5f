"""Why did vLLM stop? From its exit code, its last lines and the kernel's OOM counter to one sentence. Pure."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_api.names import ExitCode
from tunewright_server.causes import CAUSES, OUT_OF_MEMORY, SIGNALS
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


# vLLM starts with it, and answers every chat with 400.
_TEMPLATE = re.compile(r"jinja2\S*\.TemplateSyntaxError: (.*)")

# "(EngineCore pid=7) ERROR 11-22 12:00:00 [core.py:1] " before what was said.
_PREFIX = re.compile(r"^(\(\S+ pid=\d+\) )?((ERROR|WARNING|INFO|DEBUG) [\d-]+ [\d:]+ \[[^\]]+\] ?)?")
# Neither advice nor the access log, which holds what clients wrote, tells the cause of an end.
_HARMLESS = re.compile(r"^(\(\S+ pid=\d+\) )?(WARNING|INFO|DEBUG)\b")
_USAGE = re.compile(r"^\S+: error: (.*)")
_EXCEPTION = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Exit)\b")
# Said by the parent of the process that knows the cause.
_ECHO = re.compile(r"root cause above|Engine core initialization failed|EngineDeadError")
_ENGINE_DIED = re.compile(r"\bEngineDeadError\b")
# What is printed on every way out.
_NOISE = re.compile(r"^INFO:|\b\w*Warning: |^warnings\.warn|^Traceback|^[\^~]+$|^File \"")


def diagnose(stopped: Exit) -> ServerError:
    """The failure that names the cause, what to do, and the lines that show it."""
    lines = _said(stopped.lines)
    shown = _tail(lines)
    if stopped.oom_kills:
        return ServerError(
            ExitCode.OUT_OF_MEMORY, f"the kernel killed vLLM for exceeding the memory limit: {OUT_OF_MEMORY}"
        )
    if stopped.code == _USAGE_ERROR:
        return ServerError(ExitCode.INVALID_CONFIG, f"vLLM refuses its arguments: correct spec.engine. {_usage(lines)}")
    for cause in CAUSES:
        if any(cause.pattern.search(line) for line in lines):
            return ServerError(cause.code, f"{cause.message}. {shown}")
    if (number := _signal(stopped.code)) in SIGNALS:
        code, message = SIGNALS[number]
        return ServerError(code, f"{message}. {shown}")
    if any(map(_ENGINE_DIED.search, lines)) and not _exceptions(lines):
        return ServerError(
            ExitCode.INTERNAL,
            "vLLM's engine process died without saying why: it was killed, or crashed in native code. The log of the "
            "node's kernel tells which",
        )
    return ServerError(ExitCode.INTERNAL, f"vLLM {_ended(stopped.code)} without being asked to. {shown}")


def find_fault(lines: Sequence[str]) -> ServerError | None:
    """A fault with which vLLM starts, but cannot answer all that it should; None when its output shows none."""
    for line in lines:
        if broken := _TEMPLATE.search(line):
            return ServerError(
                ExitCode.INVALID_DATA,
                f"the chat template of the artifact is no valid Jinja ({broken[1][:_LINE_LENGTH]}), so no chat can be "
                "answered: register the model with a correct chat_template",
            )
    return None


def _said(output: Sequence[str]) -> list[str]:
    """What may tell the cause, without the prefixes of the log."""
    return [_PREFIX.sub("", line).strip() for line in output if not _HARMLESS.match(line)]


def _usage(lines: Sequence[str]) -> str:
    """What argparse says after a page of usage."""
    errors = [found[1] for line in lines if (found := _USAGE.match(line))]
    return f"It says: {errors[-1][: 3 * _LINE_LENGTH]}" if errors else _tail(lines)


def _signal(code: int) -> signal.Signals | None:
    """The signal that ended a process, if it was one that Python knows."""
    try:
        return signal.Signals(-code) if code < 0 else None
    except ValueError:
        return None


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    known = _signal(code)
    return f"was ended by {known.name if known else f'signal {-code}'}"


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
