"""Saves the training state while training goes on, and reads it back.

`save` copies this rank's state to host memory, which is all that training waits for. A thread then writes it; when all
ranks have written theirs, rank 0 renames the directory to its final name. At most one save is under way.
"""

import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.checkpoint import directory, rng
from tunewright_trainer.checkpoint.staging import Staging
from tunewright_trainer.errors import StageError, classify
from tunewright_trainer.files import sync_file
from tunewright_trainer.processes import Processes


class Checkpointer:
    """The checkpoints of one run, as one rank sees them.

    Attributes:
        completed: Step of the newest checkpoint that is complete; None without one.
    """

    def __init__(
        self,
        root: Path,
        keep_last: int,
        processes: Processes,
        *,
        state_rank: int,
        description: directory.Description,
        completed: int | None,
        staging: Staging | None = None,
    ) -> None:
        """Args:
        root: Directory of the checkpoints.
        keep_last: How many of them stay.
        processes: Of the run.
        state_rank: See `Strategy`.
        description: What the run has to have in common with one that goes on from it.
        completed: Step of the newest checkpoint.
        staging: Where copies of the state wait to be written; host memory if absent.
        """
        self.completed = completed
        self._root, self._keep_last, self._description = root, keep_last, description
        self._processes, self._state_rank = processes, state_rank
        self._staging = staging or Staging()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: dict[str, Any]) -> float:
        """Begin to save what `step` steps made: the seconds that training was kept waiting.

        Args:
            step: Optimizer steps done.
            state: The strategy's; live tensors.

        Raises:
            Exception: What the save before raised, which is waited for.
        """
        started = time.perf_counter()
        self.wait()
        share = state if self._processes.rank == self._state_rank else None
        staged = self._staging.copy({"share": share, "rng": rng.state()})
        self._thread = threading.Thread(target=self._write, args=(step, staged), name="checkpoint", daemon=True)
        self._thread.start()
        return time.perf_counter() - started

    def poll(self) -> None:
        """Look whether a save failed.

        Raises:
            Exception: What it raised.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the save under way is complete on all ranks.

        Raises:
            Exception: What it raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.poll()

    def load(self, step: int) -> dict[str, Any]:
        """The strategy's state after `step` steps; the random number generators are set at once.

        Raises:
            StageError: INVALID_CONFIG for a checkpoint of another run, INPUT_NOT_READABLE for damaged content.
        """
        directory.check(self._root, step, self._description)
        own = self._read(step, self._processes.rank)
        same = self._state_rank == self._processes.rank
        share: dict[str, Any] = (own if same else self._read(step, self._state_rank))["share"]
        rng.restore(own["rng"])
        return share

    def _write(self, step: int, staged: dict[str, Any]) -> None:
        try:
            written = self._root / directory.PARTIAL / f"step-{step}"
            written.mkdir(parents=True, exist_ok=True)
            file = directory.file_of(written, self._processes.rank)
            torch.save(staged, file)
            sync_file(file)
            files = self._sizes(file.stat().st_size)
            if self._processes.rank == 0:
                (written / directory.DESCRIPTION).write_text(self._description.to_json(files))
                directory.commit(self._root, written, step, self._keep_last)
                log.info("checkpoint saved", step=step)
            self._processes.meet(self._processes.saving)
            self.completed = step
        except BaseException as error:
            self._error = error

    def _sizes(self, own: int) -> dict[str, int]:
        """Bytes of the file of each rank, by its name, when all of them are written.

        They tell each other: a network volume may show rank 0 another node's file late, and it is the size that was
        written that counts.
        """
        sizes = torch.zeros(self._processes.world_size, dtype=torch.int64)
        sizes[self._processes.rank] = own
        if dist.is_initialized():
            dist.all_reduce(sizes, group=self._processes.saving)
        return {directory.file_of(Path(), rank).name: int(size) for rank, size in enumerate(sizes)}

    def _read(self, step: int, rank: int) -> dict[str, Any]:
        path = directory.path_of(self._root, step)
        file = directory.file_of(path, rank)
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:
            # A volume that fails may work at the next attempt, and memory that is short damages nothing.
            if isinstance(error, OSError) or classify(error, []).code is not ExitCode.INTERNAL:
                raise
            before = [other for other in directory.complete_steps(self._root) if other < step]
            then = f"go on from step {before[-1]}" if before else "begin anew"
            raise StageError(
                ExitCode.INPUT_NOT_READABLE, f"the content of {file} is damaged: remove {path} to {then}"
            ) from error
        return content
