"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3):

    lambda / 2 x sum over weights of F (w - w*)^2

w* are the weights of the base model. F is the diagonal of the empirical Fisher information per token, estimated on the
answers y of a reference set: the sum over records of (d log p(y | prompt) / d w)^2, divided by the number of tokens in
all answers. (The scores of successive tokens are uncorrelated under the model, so the square of their sum estimates
the sum of their squares.) Per token, because the loss beside it is a mean over tokens.

w are the weights that compute. Full fine-tuning changes them directly. LoRA adds scale x B A to them, so there w - w*
is that product and F belongs to the base weight. Anchoring A and B instead would say little: B begins as zero, where
no gradient reaches A, and what B does to the model changes as A moves.

Memory, fp32: F and w* (8 bytes per trained weight) for full; F (4 bytes per weight of an adapted layer) for LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError
from tunewright_trainer.objectives.forward import predict
from tunewright_trainer.objectives.likelihood import cross_entropy_sum
from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.parallel.update import Cast


class Anchor(Protocol):
    """Weights that are held near where they were."""

    importance: Tensor

    def gradients(self, take: Callable[[Tensor], None]) -> Any:
        """A context in which each backward pass hands over the gradient of these weights, once."""
        ...

    def squares(self) -> Tensor:
        """Sum of F (w - w*)^2: an fp32 scalar with a graph."""
        ...


class ElasticWeights:
    """lambda / 2 x the squares of all anchors."""

    def __init__(self, anchors: Sequence[Anchor], strength: float) -> None:
        self.anchors, self.strength = anchors, strength

    def penalty(self) -> Tensor:
        """An fp32 scalar with a graph."""
        return torch.stack([anchor.squares() for anchor in self.anchors]).sum() * (self.strength / 2)


@dataclass
class ParameterAnchor:
    """A parameter that is trained itself."""

    parameter: nn.Parameter
    origin: Tensor
    importance: Tensor

    @classmethod
    def at(cls, parameter: nn.Parameter) -> ParameterAnchor:
        """Here."""
        origin = parameter.detach().float().clone()
        return cls(parameter, origin, torch.zeros_like(origin))

    @contextmanager
    def gradients(self, take: Callable[[Tensor], None]) -> Iterator[None]:
        """Each gradient is freed at once: only one exists at a time."""

        def hand_over(parameter: Tensor) -> None:
            assert parameter.grad is not None
            take(parameter.grad)
            parameter.grad = None

        handle = self.parameter.register_post_accumulate_grad_hook(hand_over)
        try:
            yield
        finally:
            handle.remove()

    def squares(self) -> Tensor:
        """See `Anchor`."""
        result: Tensor = _WeightedSquares.apply(self.parameter, self.origin, self.importance)
        return result


@dataclass
class LoraAnchor:
    """The base weight of a linear layer, which an adapter moves by scale x B A."""

    layer: Any
    adapter: str
    importance: Tensor

    @classmethod
    def at(cls, name: str, layer: Any) -> LoraAnchor:
        """Of a peft layer.

        Raises:
            StageError: INVALID_CONFIG for a layer whose effective weight is not W + scale x B A of a linear layer.
        """
        (adapter,) = layer.active_adapters
        if adapter not in layer.lora_A or layer.use_dora.get(adapter):
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"objective.supervised.ewc holds linear layers that plain LoRA adapts, and {name} is none: remove it "
                "from method.lora.targetModules, or DoRA from method.lora",
            )
        weight = layer.lora_B[adapter].weight
        shape = layer.get_delta_weight(adapter).shape
        return cls(layer, adapter, torch.zeros(shape, dtype=torch.float32, device=weight.device))

    @contextmanager
    def gradients(self, take: Callable[[Tensor], None]) -> Iterator[None]:
        """From what goes in and what comes back, because a quantized base weight has no gradient of its own."""

        def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():  # gradient checkpointing runs the layer a second time, with gradients
                return
            if not output.requires_grad:
                output.requires_grad_()
            entered = inputs[0].detach().flatten(0, -2)

            def hand_over(gradient: Tensor) -> None:
                left = gradient.flatten(0, -2)
                product = left.float().T @ entered.float()
                take(product.T if self.layer.fan_in_fan_out else product)

            output.register_hook(hand_over)

        handle = self.layer.get_base_layer().register_forward_hook(watch)
        try:
            yield
        finally:
            handle.remove()

    def squares(self) -> Tensor:
        """See `Anchor`. B A is made anew for the backward pass, so that one layer's exists at a time."""
        pair = self.layer.lora_A[self.adapter].weight, self.layer.lora_B[self.adapter].weight
        result: Tensor = checkpoint(self._squares, *pair, use_reentrant=False)
        return result

    def _squares(self, *_: Tensor) -> Tensor:
        moved = self.layer.get_delta_weight(self.adapter).float()
        return (self.importance * moved * moved).sum()


def anchors_of(model: nn.Module) -> list[Anchor]:
    """Of everything that is trained, where it is now: the base weight of LoRA layers, other parameters themselves."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    inside = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    anchors: list[Anchor] = [LoraAnchor.at(name, layer) for name, layer in layers.items()]
    anchors += [ParameterAnchor.at(p) for p in model.parameters() if p.requires_grad and id(p) not in inside]
    return anchors


def estimate_fisher(model: nn.Module, batches: Sequence[Batch], anchors: Sequence[Anchor], cast: Cast) -> None:
    """Fill in the importance of the anchors; all ranks call it together, each with records of its own.

    Args:
        model: At w*, on its device.
        batches: One record each: the square is that of a record's gradient.
        anchors: From `anchors_of`.
        cast: Context of the forward passes; never to fp16, in which small gradients vanish unless they are scaled.
    """
    training = model.training
    model.eval()
    with _wide_range(model):
        for batch in batches:
            with ExitStack() as stack:
                for anchor in anchors:
                    stack.enter_context(anchor.gradients(_adding_squares(anchor.importance)))
                with cast():
                    predictions = predict(model, batch)
                    loss = cross_entropy_sum(predictions.logits, predictions.targets)
                loss.backward()
        model.zero_grad(set_to_none=True)
    model.train(training)
    tokens = torch.tensor(float(sum(batch.units for batch in batches)), device=anchors[0].importance.device)
    if dist.is_initialized():
        for tensor in (*(anchor.importance for anchor in anchors), tokens):
            dist.all_reduce(tensor)
    for anchor in anchors:
        anchor.importance /= tokens


@contextmanager
def _wide_range(model: nn.Module) -> Iterator[None]:
    """What is fp16 and would have fp16 gradients is bf16 inside, which has the range of fp32: trained weights (of
    DeepSpeed), and what restores 4-bit weights."""
    weights = [(p, p.data) for p in model.parameters() if p.requires_grad and p.dtype is torch.float16]
    restoring: list[Any] = [m for m in model.modules() if getattr(m, "compute_dtype", None) is torch.float16]
    for parameter, data in weights:
        parameter.data = data.bfloat16()
    for module in restoring:
        module.compute_dtype = torch.bfloat16
    try:
        yield
    finally:
        for parameter, data in weights:
            parameter.data = data
        for module in restoring:
            module.compute_dtype = torch.float16


def _adding_squares(importance: Tensor) -> Callable[[Tensor], None]:
    def take(gradient: Tensor) -> None:
        importance.addcmul_(gradient.float(), gradient.float())

    return take


class _WeightedSquares(torch.autograd.Function):  # type: ignore[misc]
    """sum of F (w - w*)^2 that keeps no intermediate tensor for the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, origin: Tensor, importance: Tensor) -> Tensor:
        ctx.save_for_backward(weight, origin, importance)
        return (weight.float() - origin).square_().mul_(importance).sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        weight, origin, importance = ctx.saved_tensors
        gradient = (weight.float() - origin).mul_(importance).mul_(2 * upstream)
        return gradient.to(weight.dtype), None, None
