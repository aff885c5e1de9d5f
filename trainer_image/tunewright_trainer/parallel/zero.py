"""DeepSpeed ZeRO: optimizer states (1), gradients (2) and weights (3) divided among the processes
(Rajbhandari et al. 2020, arXiv:1910.02054)."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunewright_trainer import weights
from tunewright_trainer.objectives.objective import Batch, Objective
from tunewright_trainer.parallel.replica import persistent_buffers, restore_trainable, trainable_state
from tunewright_trainer.parallel.strategy import OptimizerFactory, StepResult
from tunewright_trainer.parallel.update import accumulate, casting, loss_sum_of_all, set_learning_rate
from tunewright_trainer.processes import Processes

_OBJECTS = ("loss_scaler", "param_slice_mappings", "zero_stage")
"""Entries of DeepSpeed's optimizer state that are Python objects: the scale is saved as numbers, the rest follows from
the configuration."""


class Zero:
    """A `Strategy` of DeepSpeed. DeepSpeed clips, scales fp16 losses and keeps fp32 master weights itself."""

    def __init__(self, processes: Processes, configuration: dict[str, Any]) -> None:
        import_deepspeed(processes.device.type)
        self.data_rank, self.data_size = processes.rank, processes.world_size
        self._device, self._configuration = processes.device, configuration
        self._stage = int(configuration["zero_optimization"]["stage"])
        # Without ZeRO every process has everything.
        self.state_rank = processes.rank if self._stage else 0
        self._cast = casting(processes.device, None)
        self._norm: Tensor | None = None
        if self._stage == 3:
            from transformers.integrations import HfDeepSpeedConfig

            # While this object lives, from_pretrained divides each weight as it loads it.
            self._sharded_loading = HfDeepSpeedConfig(configuration)

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Hand model and optimizer to DeepSpeed."""
        import deepspeed

        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._model = model
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer(named), config=self._configuration
        )
        self._engine.train()

    def step(
        self,
        micro_batches: Sequence[Batch],
        objective: Objective,
        *,
        units: int,
        learning_rate: float,
        max_grad_norm: float,
    ) -> StepResult:
        """See `Strategy.step`. DeepSpeed averages over processes, so the losses are multiplied by their number.

        `max_grad_norm` and the number of micro batches are those of the configuration.
        """
        set_learning_rate(self._optimizer, learning_rate)
        total = accumulate(
            self._engine,
            micro_batches,
            objective,
            cast=self._cast,
            backward=self._backward,
            scale=self.data_size / units,
        )
        dist.all_reduce(total)
        norm: Any = self._norm if self._plain else self._engine.get_global_grad_norm()
        return StepResult(loss=float(total) / units, grad_norm=float(norm))

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """See `Strategy.evaluate`."""
        return loss_sum_of_all(self._engine, micro_batches, objective, self._cast)

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`. The fp32 master weights of ZeRO are part of the optimizer's state."""
        state = self._optimizer.state_dict()
        saved: dict[str, Any] = {"optimizer": {key: state[key] for key in state if key not in _OBJECTS}}
        saved["model"] = persistent_buffers(self._model) if self._stage else trainable_state(self._model)
        return saved | self._scaler()

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        if not self._stage:
            restore_trainable(self._model, state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        else:
            for name, buffer in persistent_buffers(self._model).items():
                buffer.copy_(state["model"][name])
            # DeepSpeed reads the entry of this rank. ZeRO-3 wants a scaler in it; the numbers of ours follow below.
            entry = state["optimizer"] | {"loss_scaler": self._optimizer.loss_scaler}
            self._optimizer.load_state_dict([entry] * self.data_size, load_from_fp32_weights=True)
            if self._stage < 3:
                self._optimizer.update_lp_params()
        self._restore_scaler(state)

    def gather(self, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, Tensor]:
        """See `weights.gather`."""
        return weights.gather(self._model, keep=keep, dtype=dtype, whole=whole)

    @property
    def _plain(self) -> bool:
        """Whether the optimizer is torch's own, unwrapped: no ZeRO and fp32. DeepSpeed then measures no norm."""
        return isinstance(self._optimizer, torch.optim.Optimizer)

    def _scaler(self) -> dict[str, Any]:
        return {"scaler": _numbers(self._optimizer.loss_scaler)} if self._stage else {}

    def _restore_scaler(self, state: dict[str, Any]) -> None:
        if "scaler" in state:
            vars(self._optimizer.loss_scaler).update(state["scaler"])

    def _backward(self, loss: Tensor) -> None:
        self._engine.backward(loss, scale_wrt_gas=False)
        if self._plain and self._engine.is_gradient_accumulation_boundary():
            gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
            self._norm = nn.utils.get_total_norm(gradients)
        self._engine.step()


def import_deepspeed(device: str) -> None:
    """Import DeepSpeed and let it use the process group that exists."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device == "cpu":
        # Shared-memory all-reduce for inference within a node: compiling it costs a C++ toolchain in the image and a
        # minute per start, and training does not need it. Declared incompatible, DeepSpeed goes on without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo" if device == "cpu" else "nccl"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def _numbers(scaler: object) -> dict[str, Any]:
    return {name: value for name, value in vars(scaler).items() if isinstance(value, bool | int | float)}
