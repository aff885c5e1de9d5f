"""Magnitude pruning (Han et al. 2015, arXiv:1506.02626): the smallest weights become 0.

Only the linear layers of the decoder are pruned, as is usual for language models: embeddings, head and norms are few
and count for much.
"""

import torch
from torch import Tensor, nn

from tunewright_api.pruning import Pruning, PruningScope
from tunewright_trainer.kernels import decoder_layers

_HALVINGS = 60


@torch.no_grad()  # type: ignore[untyped-decorator]
def prune(model: nn.Module, pruning: Pruning) -> float:
    """Set weights to 0 in place; returns the share of them that is 0 afterwards."""
    matrices = prunable(model)
    if pruning.scope is PruningScope.GLOBAL:
        threshold = global_threshold(matrices, pruning.sparsity)
        for matrix in matrices:
            matrix.masked_fill_(matrix.abs() <= threshold, 0)
    else:
        for matrix in matrices:
            prune_matrix(matrix, pruning.sparsity)
    return sparsity(matrices)


def prunable(model: nn.Module) -> list[Tensor]:
    """The weights of the linear layers inside the decoder's blocks."""
    return [
        module.weight for layer in decoder_layers(model) for module in layer.modules() if isinstance(module, nn.Linear)
    ]


def prune_matrix(matrix: Tensor, share: float) -> None:
    """Set the smallest `share` of the entries to 0, rounded to whole entries; equal ones in the order of `topk`."""
    count = round(share * matrix.numel())
    matrix.view(-1)[matrix.abs().flatten().topk(count, largest=False).indices] = 0


def global_threshold(matrices: list[Tensor], share: float) -> float:
    """The magnitude below or at which `share` of all entries lie: by bisection, so that nothing is copied or sorted."""
    total = sum(matrix.numel() for matrix in matrices)
    low, high = 0.0, max(float(matrix.abs().max()) for matrix in matrices)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(int((matrix.abs() <= middle).sum()) for matrix in matrices) < share * total:
            low = middle
        else:
            high = middle
    return high


def sparsity(matrices: list[Tensor]) -> float:
    """The share of the entries that is 0."""
    zeros, all_of_them = 0, 0
    for matrix in matrices:
        zeros += int((matrix == 0).sum())
        all_of_them += matrix.numel()
    return zeros / all_of_them
