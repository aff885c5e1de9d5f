"""Fully sharded data parallelism: PyTorch's FSDP2. Weights, gradients and optimizer states are divided among all
processes; each decoder layer is gathered when it computes (Zhao et al. 2023, arXiv:2304.11277)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tunewright_api.distributed import Fsdp, Sharding
from tunewright_trainer import weights
from tunewright_trainer.objectives.objective import Batch, Objective
from tunewright_trainer.parallel.gradients import clip, squared_norm
from tunewright_trainer.parallel.replica import trainable_state
from tunewright_trainer.parallel.strategy import OptimizerFactory, StepResult
from tunewright_trainer.parallel.update import accumulate, casting, loss_sum_of_all, set_learning_rate
from tunewright_trainer.processes import Processes


class FullySharded:
    """A `Strategy` of processes that each hold a share of every tensor.

    Args of the constructor:
        processes: All of them.
        fsdp: spec.distributed.fsdp.
        dtype: Of computation and of gathered weights; the shards keep theirs. None computes in that.
    """

    def __init__(self, processes: Processes, fsdp: Fsdp, dtype: torch.dtype | None) -> None:
        self.data_rank, self.data_size = processes.rank, processes.world_size
        self.state_rank = processes.rank
        self._device, self._fsdp, self._dtype = processes.device, fsdp, dtype
        # FSDP casts what a layer gets; no autocast.
        self._cast = casting(processes.device, None)

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Divide the model, layer by layer, and make the optimizer of this process's shards."""
        arguments = self._arguments()
        for layer in sharding_units(model):
            fully_shard(layer, **arguments)
        fully_shard(model, **arguments)
        self._model: Any = model
        self._optimizer = optimizer(model.named_parameters())
        self._parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def step(
        self,
        micro_batches: Sequence[Batch],
        objective: Objective,
        *,
        units: int,
        learning_rate: float,
        max_grad_norm: float,
    ) -> StepResult:
        """See `Strategy.step`. FSDP averages over processes, so the losses are multiplied by their number.

        Gradients are divided after every micro batch, not after the last one only: whole ones would cost the memory
        that sharding saves.
        """
        set_learning_rate(self._optimizer, learning_rate)
        total = accumulate(
            self._model,
            micro_batches,
            objective,
            cast=self._cast,
            backward=Tensor.backward,
            scale=self.data_size / units,
        )
        gradients = [local(parameter.grad) for parameter in self._parameters if parameter.grad is not None]
        sums = torch.stack([total, squared_norm(gradients, self._device)])
        dist.all_reduce(sums)
        norm = sums[1].sqrt()
        clip(gradients, norm, max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(loss=float(sums[0]) / units, grad_norm=float(norm))

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """See `Strategy.evaluate`. All processes give the same number of micro batches: each gathers the layers."""
        return loss_sum_of_all(self._model, micro_batches, objective, self._cast)

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`: the shards of this process."""
        return {
            "model": {name: local(tensor) for name, tensor in trainable_state(self._model).items()},
            "optimizer": _convert(self._optimizer.state_dict(), lambda _, tensor: local(tensor)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        with torch.no_grad():
            for name, tensor in trainable_state(self._model).items():
                local(tensor).copy_(state["model"][name])
        self._optimizer.load_state_dict(_convert(state["optimizer"], self._shard))

    def gather(self, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, Tensor]:
        """See `weights.gather`."""
        return weights.gather(self._model, keep=keep, dtype=dtype, whole=whole)

    def _shard(self, index: int, tensor: Tensor) -> Tensor:
        """A tensor of the optimizer as it lies beside parameter `index`: what has its shape is divided as it is."""
        parameter = self._parameters[index]
        if not isinstance(parameter, DTensor) or tensor.shape != parameter.to_local().shape or not parameter.ndim:
            return tensor
        sharded: Tensor = DTensor.from_local(
            tensor.to(parameter.to_local().device),
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
        return sharded

    def _arguments(self) -> dict[str, Any]:
        cuda = self._device.type == "cuda"
        return {
            "mesh": init_device_mesh(self._device.type, (self.data_size,), mesh_dim_names=("data",)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=self._dtype, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy(pin_memory=cuda) if self._fsdp.cpu_offload else OffloadPolicy(),
            "reshard_after_forward": self._fsdp.sharding is Sharding.FULL,
        }


def sharding_units(model: nn.Module) -> list[nn.Module]:
    """The modules that compute one after the other: what the architecture says must not be split."""
    names: set[str] = set()
    for module in model.modules():
        names.update(getattr(module, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor; it shares its memory."""
    if isinstance(tensor, DTensor):
        share: Tensor = tensor.to_local()
        return share
    return tensor


def _convert(state: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """An optimizer's state_dict whose tensors per parameter are changed."""
    return state | {
        "state": {
            index: {name: change(index, v) if isinstance(v, Tensor) else v for name, v in entries.items()}
            for index, entries in state["state"].items()
        }
    }
