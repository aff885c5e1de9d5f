"""Products of linear layers in 8-bit floating point, with one scale per tensor that is found anew in each pass.

The recipe is that of Micikevicius et al. 2022 (arXiv:2209.05433): e4m3 for weights and activations, e5m2 for gradients,
which need range more than digits; sums, weights, optimizer and everything else keep their format. `scaled_mm` is
PyTorch's own, so nothing has to be installed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

MULTIPLE = 16
"""Both dimensions of an 8-bit operand must be multiples of this (a requirement of the tensor cores)."""

_FORWARD, _BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2


def use_fp8(model: Any) -> int:
    """Let the linear layers of a model compute in 8 bits, in place: names and weights stay. Returns how many.

    The head stays as it is: its rounding errors would go straight into the loss.
    """
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if eligible(module) and module is not head]
    for layer in layers:
        layer.__class__ = Float8Linear
    return len(layers)


def eligible(module: nn.Module) -> bool:
    """A plain linear layer whose dimensions the tensor cores take."""
    return type(module) is nn.Linear and module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0


class Float8Linear(nn.Linear):  # type: ignore[misc]
    """nn.Linear that computes in 8 bits; its output has the dtype of autocast, or else of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape (..., in) -> (..., out)."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        rows = input.reshape(-1, input.shape[-1]).to(dtype)
        filled = nn.functional.pad(rows, (0, 0, 0, -len(rows) % MULTIPLE))
        product = _Product.apply(filled, self.weight)[: len(rows)]
        output = product.reshape(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias.to(dtype)


class _Product(torch.autograd.Function):  # type: ignore[misc]
    """x W^T, with x of shape (rows, in) and W of shape (out, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        small_x, scale_x = quantise(x, _FORWARD)
        small_weight, scale_weight = quantise(weight, _FORWARD)
        ctx.save_for_backward(small_x, scale_x, small_weight, scale_weight)
        ctx.weight_dtype = weight.dtype
        return _multiply(small_x, scale_x, small_weight, scale_weight, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        small_x, scale_x, small_weight, scale_weight = ctx.saved_tensors
        small, scale = quantise(gradient, _BACKWARD)
        return (
            _multiply(small, scale, small_weight.t(), scale_weight, gradient.dtype),
            _multiply(small.t(), scale, small_x.t(), scale_x, gradient.dtype).to(ctx.weight_dtype),
        )


def quantise(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(rounded, scale): tensor is about rounded x scale, and the scale, an fp32 scalar, uses the whole range."""
    largest = tensor.detach().abs().max().float()
    scale = (largest / torch.finfo(dtype).max).clamp(min=1e-30)
    return (tensor.float() / scale).to(dtype), scale


def _multiply(a: Tensor, scale_a: Tensor, b: Tensor, scale_b: Tensor, dtype: torch.dtype) -> Tensor:
    """a b^T; the tensor cores want the first operand by rows and the second by columns."""
    return scaled_mm(
        a.contiguous(),
        b.contiguous().t(),
        scale_a,
        ScalingType.TensorWise,
        scale_b,
        ScalingType.TensorWise,
        output_dtype=dtype,
    )
