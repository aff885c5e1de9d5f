"""A copy of the training state in host memory, so that training goes on while it is written."""

from typing import Any

import torch
from torch import Tensor


class Staging:
    """Copies nested state into host tensors that are kept for the next time: memory is touched afresh only once.

    Costs as much host memory as this rank's share of weights and optimizer state.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}

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
        if isinstance(value, list | tuple):
            copies = [self._copy(item, (*path, index), used) for index, item in enumerate(value)]
            return tuple(copies) if isinstance(value, tuple) else copies
        return value

    def _tensor(self, value: Tensor, path: tuple[object, ...]) -> Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._buffers[path] = buffer
        buffer.copy_(value.detach(), non_blocking=True)
        return buffer
