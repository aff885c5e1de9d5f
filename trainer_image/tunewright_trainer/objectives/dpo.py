"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, eq. 7) over pairs of answers to one prompt:

    h = beta x ((log p(chosen) - log ref(chosen)) - (log p(rejected) - log ref(rejected)))
    L = -(1 - e) log sigmoid(h) - e log sigmoid(-h)

log p(answer) is the sum over the answer's tokens; ref is the model before training. e is the label smoothing of
conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO", eq. 5); 0 is plain DPO.
"""

from __future__ import annotations

from torch import Tensor, nn

from tunewright_trainer.objectives.figures import Means
from tunewright_trainer.objectives.forward import predict
from tunewright_trainer.objectives.likelihood import token_log_probs
from tunewright_trainer.objectives.objective import Batch

REFERENCE = "reference"
"""Entry of Batch.extra: shape (2, pairs), fp32: log ref of the chosen answers, then of the rejected ones."""


class Dpo:
    """Sum over pairs. The rows of a batch are the chosen answers of all its pairs, then the rejected ones."""

    def __init__(self, *, beta: float, label_smoothing: float) -> None:
        self.beta, self.label_smoothing = beta, label_smoothing
        self._means = Means()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the pairs of the micro batch: an fp32 scalar."""
        rewards = self.beta * (answer_log_probs(model, batch) - batch.extra[REFERENCE])
        margins = rewards[0] - rewards[1]
        if not batch.units:  # a forward pass for the others' sake
            return margins.sum() * 0
        loss = dpo_sum(margins, self.label_smoothing)
        self._means.add(
            batch.units,
            rewardMargin=margins.sum(),
            rewardAccuracy=(margins > 0).sum(),
            rewardChosen=rewards[0].sum(),
            rewardRejected=rewards[1].sum(),
        )
        return loss

    def penalty(self, model: nn.Module) -> Tensor | None:
        """None."""
        return None

    def figures(self) -> dict[str, float]:
        """Means over the pairs of the global batch: implicit rewards, their margin, and how often it is positive."""
        return self._means.take()


def dpo_sum(margins: Tensor, label_smoothing: float) -> Tensor:
    """Sum of L over reward margins h of shape (pairs,)."""
    right, wrong = nn.functional.logsigmoid(margins), nn.functional.logsigmoid(-margins)
    return -((1 - label_smoothing) * right + label_smoothing * wrong).sum()


def answer_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """log p(answer | prompt) of shape (2, pairs), fp32: chosen, then rejected."""
    predictions = predict(model, batch)
    return token_log_probs(predictions.logits, predictions.targets).sum(dim=1).view(2, -1)
