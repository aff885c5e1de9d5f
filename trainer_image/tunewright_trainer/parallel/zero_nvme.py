"""ZeRO-3 whose optimizer states or weights wait on a disk (ZeRO-Infinity, Rajbhandari et al., arXiv:2104.07857)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from tunewright_trainer.parallel.async_io import load_async_io
from tunewright_trainer.parallel.zero import Zero, import_deepspeed
from tunewright_trainer.processes import Processes


class ZeroNvme(Zero):
    """`Zero` with a training state that is larger than memory: it is saved and taken back by DeepSpeed's sub-groups,
    a billion weights at a time. DeepSpeed's own dictionary of the state leaves out what is on the disk."""

    def __init__(self, processes: Processes, configuration: dict[str, Any]) -> None:
        import_deepspeed(processes.device.type)
        from deepspeed.accelerator import get_accelerator

        load_async_io(get_accelerator().create_op_builder("AsyncIOBuilder"))
        super().__init__(processes, configuration)

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`. Each sub-group is in memory within its context only."""
        groups = [self._group(index) for index in range(self._groups)]
        return {"model": {}, "groups": groups} | self._scaler()

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        self._optimizer._partition_all_parameters()
        timers: set[str] = set()
        for index, saved in enumerate(state["groups"]):
            self._optimizer._prepare_sub_group(index, timers)
            weight = self._optimizer.fp32_partitioned_groups_flat[index]
            weight.data.copy_(saved["weight"])
            self._optimizer.optimizer.state[weight] = {
                # A copy does not keep the checkpoint's file mapped.
                name: value.to(weight.device, copy=True) if isinstance(value, Tensor) else value
                for name, value in saved["optimizer"].items()
            }
            # As after a step: the weights for the next forward follow the fp32 ones, and all goes back to its place.
            self._optimizer._reassign_or_swap_out_partitioned_parameters(index)
            self._optimizer._release_sub_group(index, timers)
        self._optimizer._post_step(timers)
        self._restore_scaler(state)

    @property
    def _groups(self) -> int:
        return len(self._optimizer.fp32_partitioned_groups_flat)

    @contextmanager
    def _group(self, index: int) -> Iterator[dict[str, Any]]:
        swapped = self._optimizer._swappable_optimizer_subgroup(index)
        weight = self._optimizer.fp32_partitioned_groups_flat[index]
        if swapped:
            self._optimizer._optimizer_states_and_gradient_swap_in(index)
        yield {"weight": weight.data, "optimizer": dict(self._optimizer.optimizer.state[weight])}
        if swapped:
            self._optimizer._release_swap_buffers(index)
