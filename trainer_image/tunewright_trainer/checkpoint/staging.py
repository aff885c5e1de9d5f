"""A copy of the training state, so that training goes on while it is written."""

from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor


class Staging:
    """Copies nested state into host tensors that are kept for the next time: memory is touched afresh only once.

    A context manager in the state stands for what it gives: it is entered to be copied, one at a time.
    Costs as much host memory as this rank's share of weights and optimizer state, or as much of a disk.
    """

    def __init__(self, disk: Path | None = None) -> None:
        """Args:
        disk: Directory of this rank for the copies, where the state is larger than memory; in memory if absent.
        """
        self._buffers: dict[tuple[object, ...], Tensor] = {}
        self._disk = disk

    def copy(self, state: Any) -> Any:
        """The same nesting with copies of the tensors; the copies of an earlier call are overwritten."""
        used: set[tuple[object, ...]] = set()
        staged = self._copy(state, (), used)
        for path in self._buffers.keys() - used:
            del self._buffers[path]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return staged

    def _copy(self, value: Any, path: tuple[object, ...], used: set[tuple[object, ...]]) -> Any:
        if isinstance(value, Tensor):
            used.add(path)
            return self._tensor(value, path)
        if isinstance(value, dict):
            return {key: self._copy(item, (*path, key), used) for key, item in value.items()}
        if isinstance(value, AbstractContextManager):
            with value as live:
                return self._copy(live, path, used)
        if isinstance(value, list | tuple):
            copies = [self._copy(item, (*path, index), used) for index, item in enumerate(value)]
            return tuple(copies) if isinstance(value, tuple) else copies
        return value

    def _tensor(self, value: Tensor, path: tuple[object, ...]) -> Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = self._buffers[path] = self._empty(value)
        buffer.copy_(value.detach(), non_blocking=True)
        return buffer

    def _empty(self, like: Tensor) -> Tensor:
        if self._disk is None or not like.numel():
            return torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        self._disk.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._disk) as file:
            # The mapping keeps the file, which needs no name any more: nothing is left behind however the run ends.
            mapped = torch.from_file(file.name, shared=True, size=like.numel(), dtype=like.dtype)
        return mapped.view(like.shape)
