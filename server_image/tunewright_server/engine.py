"""vLLM as a child process: start it, pass its output on, watch it, stop it."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

_LINES_KEPT = 200
_CHUNK = 1 << 16
_MAX_LINE = 4096
# Progress bars end their lines with a carriage return.
_LINE_END = re.compile(rb"[\r\n]+")


class Engine:
    """A running vLLM. It leads a session of its own, so that its workers can be found and ended with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._printed_at = time.monotonic()
        self._readers = [
            asyncio.create_task(self._forward(stream, target))
            for stream, target in ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
            if stream is not None
        ]

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> "Engine":
        """Start the command. Raises OSError when it cannot be executed."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )

    @property
    def lines(self) -> list[str]:
        """The last lines of its output, oldest first."""
        return list(self._lines)

    @property
    def printed_at(self) -> float:
        """Monotonic time of its last output."""
        return self._printed_at

    async def wait(self) -> int:
        """Its exit code, once it ended and all its output was read."""
        code = await self._process.wait()
        # A worker that outlives its parent would keep the pipes open and hold on to memory.
        self._signal(signal.SIGKILL)
        await asyncio.wait(self._readers, timeout=2)
        return code

    async def stop(self, grace: float) -> bool:
        """SIGTERM, and SIGKILL after `grace` seconds. True when it ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            # Only the leader: vLLM stops its workers in order.
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), grace)
            graceful = True
        except TimeoutError:
            graceful = False
            self._signal(signal.SIGKILL)
        await self.wait()
        return graceful

    def cpu_seconds(self) -> float:
        """CPU time of all processes of its session so far."""
        return sum(_cpu_seconds(path, self._process.pid) for path in Path("/proc").glob("[0-9]*/stat"))

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _forward(self, stream: asyncio.StreamReader, target: BinaryIO) -> None:
        """Copy the stream byte for byte and keep its last lines."""
        rest = b""
        while chunk := await stream.read(_CHUNK):
            self._printed_at = time.monotonic()
            target.write(chunk)
            target.flush()
            *lines, rest = _LINE_END.split(rest + chunk)
            self._lines.extend(line[:_MAX_LINE].decode(errors="replace") for line in lines if line)
            rest = rest[-_MAX_LINE:]
        if rest:
            self._lines.append(rest.decode(errors="replace"))


def _cpu_seconds(stat: Path, session: int) -> float:
    """User and system time of the process if it belongs to the session, else 0 (proc(5): fields 6, 14 to 17)."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return 0.0
    if int(fields[3]) != session:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
