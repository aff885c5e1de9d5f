"""Pipeline parallelism: each stage holds a share of the layers, and micro batches flow through them by the schedule
1F1B (Narayanan et al. 2021, arXiv:2104.04473, section 2.2); alone, or in several copies that read different records.

Ranks are counted as in Megatron-LM: the copies of one stage are neighbours, so that the gradients of a layer are added
up within a node where that is possible, and only activations travel between nodes.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from tunewright_api.names import ExitCode
from tunewright_trainer import weights
from tunewright_trainer.errors import StageError
from tunewright_trainer.objectives.objective import Batch, Objective
from tunewright_trainer.parallel.alignment import aligned, common_shape
from tunewright_trainer.parallel.gradients import clip, squared_norm, sum_over
from tunewright_trainer.parallel.replica import restore_trainable, trainable_state
from tunewright_trainer.parallel.stages import StageModel
from tunewright_trainer.parallel.strategy import OptimizerFactory, StepResult
from tunewright_trainer.parallel.update import Cast, evaluating, set_learning_rate
from tunewright_trainer.processes import Processes, collective_timeout


class PipelineParallel:
    """A `Strategy` of stages times copies: rank = stage x copies + copy."""

    def __init__(self, processes: Processes, stages: int, cast: Cast) -> None:
        copies = processes.world_size // stages
        self.stage, self.data_rank = divmod(processes.rank, copies)
        self.data_size = copies
        self.state_rank = self.stage * copies
        self._stages, self._processes, self._device, self._cast = stages, processes, processes.device, cast
        everyone = [[stage * copies + copy for copy in range(copies)] for stage in range(stages)]
        self._pipeline = _own_group([list(line) for line in zip(*everyone, strict=True)])
        self._copies = _own_group(everyone)
        self._ends = _own_group([[first, last] for first, last in zip(everyone[0], everyone[-1], strict=True)])

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Keep this stage's layers, and make the optimizer of their weights."""
        self._part = StageModel(model, self.stage, self._stages)
        self._model = model.to(self._device)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"nothing is trained in stage {self.stage} of the pipeline: use fewer stages, or freeze fewer layers",
            )
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
        """See `Strategy.step`."""
        set_learning_rate(self._optimizer, learning_rate)
        flow = _Flow(self._part, micro_batches, objective, self._cast, 1 / units)
        total = flow.run(self._stage_of(flow), backward=True)
        norm = self._exchange_gradients()
        dist.all_reduce(total)
        clip([p.grad for p in self._parameters if p.grad is not None], norm, max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(loss=float(total), grad_norm=float(norm))

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """See `Strategy.evaluate`."""
        wanted = len(micro_batches)
        # 1F1B wants as many micro batches as stages: the last one is repeated, and its repetitions do not count.
        filled = [*micro_batches, *([micro_batches[-1]] * (self._stages - wanted))]
        flow = _Flow(self._part, filled, objective, self._cast, 1.0)
        with evaluating(self._model), torch.no_grad():
            total = flow.run(self._stage_of(flow), backward=False, counted=wanted)
        dist.all_reduce(total)
        return float(total)

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`: of this stage."""
        return {"model": trainable_state(self._model), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        restore_trainable(self._model, state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def gather(self, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, Tensor]:
        """See `weights.gather`. The first copy of each stage sends its tensors, one at a time."""
        own = weights.gather(self._model, keep=keep or self.data_rank == 0, dtype=dtype, whole=whole)
        keepers: list[Any] = [None] * self._processes.world_size
        dist.all_gather_object(keepers, keep, group=self._processes.control)
        result = own if keep else {}
        for sender in range(0, self._processes.world_size, self.data_size):
            for receiver in (rank for rank, keeps in enumerate(keepers) if keeps and rank != sender):
                if self._processes.rank == sender:
                    self._send(own, receiver)
                elif self._processes.rank == receiver:
                    self._receive(result, sender)
        return result

    def _send(self, tensors: dict[str, Tensor], receiver: int) -> None:
        outline = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
        dist.send_object_list([outline], dst=receiver, group=self._processes.control)
        for tensor in tensors.values():
            dist.send(tensor.contiguous(), dst=receiver, group=self._processes.control)

    def _receive(self, result: dict[str, Tensor], sender: int) -> None:
        outline: list[Any] = [None]
        dist.recv_object_list(outline, src=sender, group=self._processes.control)
        for name, shape, dtype in outline[0]:
            tensor = torch.empty(shape, dtype=dtype)
            dist.recv(tensor, src=sender, group=self._processes.control)
            result.setdefault(name, tensor)

    def _exchange_gradients(self) -> Tensor:
        """Add up what the copies of this stage and the ends of a tied weight computed: the norm of the whole."""
        tied = self._part.tied
        if tied is not None:
            sum_over([_gradient(tied)], self._ends)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self.data_size > 1:
            sum_over(gradients, self._copies)
        if self.data_rank:
            counted: list[Tensor] = []
        elif self.stage and tied is not None:
            counted = [p.grad for p in self._parameters if p.grad is not None and p is not tied]
        else:
            counted = gradients
        square = squared_norm(counted, self._device)
        dist.all_reduce(square)
        return square.sqrt()

    def _stage_of(self, flow: "_Flow") -> PipelineStage:
        def meta() -> Tensor:
            shape = (*flow.shape, self._part.width)
            return torch.empty(shape, dtype=self._part.boundary, device="meta", requires_grad=True)

        loss = torch.empty(1, device="meta", requires_grad=True)
        return PipelineStage(
            flow,
            self.stage,
            self._stages,
            self._device,
            input_args=() if self._part.first else (meta(),),
            output_args=(loss,) if self._part.last else (meta(),),
            group=self._pipeline,
        )


class _Flow(nn.Module):  # type: ignore[misc]
    """The micro batches of one step through one stage."""

    def __init__(
        self, part: StageModel, micro_batches: Sequence[Batch], objective: Objective, cast: Cast, scale: float
    ) -> None:
        super().__init__()
        self.part = part
        self._micro_batches, self._objective, self._cast, self._scale = micro_batches, objective, cast, scale
        self.shape = common_shape(micro_batches)

    def forward(self, received: Tensor | None = None, *, index: Tensor) -> Tensor:
        """Hidden states for the next stage; in the last one the scaled loss, of shape (1,)."""
        # Each one is taken when its turn comes, which shows the watchdog that the step goes on.
        batch = aligned(self._micro_batches[int(index)], self.shape)
        with self._cast():
            if not self.part.last:
                return self.part.hidden(batch.inputs, received)
            loss = self._objective.loss(self.part.fed_with(received), batch)
        return (loss * self._scale).reshape(1)

    def run(self, stage: PipelineStage, *, backward: bool, counted: int | None = None) -> Tensor:
        """All micro batches, forward and, if wanted, backward: the sum of the first `counted` scaled losses.

        It is 0 in every stage but the last one.
        """
        indices = torch.arange(len(self._micro_batches))
        schedule = Schedule1F1B(stage, len(indices), loss_fn=_given, scale_grads=False)
        losses: list[Tensor] = []
        target = indices if self.part.last else None
        if backward:
            schedule.step(index=indices, target=target, losses=losses, return_outputs=False)
        else:
            schedule.eval(index=indices, target=target, losses=losses)
        if not losses:
            return torch.zeros((), device=stage.device)
        return torch.stack([loss.detach() for loss in losses[:counted]]).sum()


def _given(loss: Tensor, target: Tensor) -> Tensor:
    """The last stage's output is the loss already."""
    return loss.sum()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _own_group(groups: Sequence[Sequence[int]]) -> Any:
    """The group that this rank is in; every rank makes all of them, in the same order."""
    own = None
    timeout = timedelta(seconds=collective_timeout())
    for ranks in groups:
        made = dist.new_group(list(ranks), timeout=timeout)
        if dist.get_rank() in ranks:
            own = made
    return own
