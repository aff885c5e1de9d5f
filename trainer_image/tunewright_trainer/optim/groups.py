"""Which parameters weight decay applies to."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def decay_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of a torch optimizer: matrices decay; biases, norms, gates and other vectors do not.

    Decay pulls weights towards 0, which is right for a matrix and wrong for a scale whose neutral value is 1.
    Frozen parameters are left out, and so are empty groups.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            (decayed if dimensions(parameter) >= 2 else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def dimensions(parameter: nn.Parameter) -> int:
    """Dimensions of the whole parameter; ZeRO-3 leaves an empty vector and keeps the shape in ds_shape."""
    return len(getattr(parameter, "ds_shape", parameter.shape))
