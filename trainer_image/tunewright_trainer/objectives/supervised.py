"""Cross entropy on what the assistant wrote, and what a job adds to it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from tunewright_trainer.objectives.contrastive import contrastive_sum, segments_of
from tunewright_trainer.objectives.distillation import Distillation
from tunewright_trainer.objectives.figures import Means
from tunewright_trainer.objectives.forward import predict
from tunewright_trainer.objectives.likelihood import cross_entropy_sum
from tunewright_trainer.objectives.objective import Batch


class Penalty(Protocol):
    """A term that depends on the weights alone."""

    def penalty(self) -> Tensor:
        """An fp32 scalar with a graph."""
        ...


class Supervised:
    """Sum over the assistant's tokens of -log p(token | everything before it), in nats, and the terms of the job.

    Attributes:
        distillation: Imitates a teacher.
        contrastive: (weight, margin) of SimCTG.
        ewc: Keeps the weights that a reference set needs.
    """

    def __init__(
        self,
        *,
        distillation: Distillation | None = None,
        contrastive: tuple[float, float] | None = None,
        ewc: Penalty | None = None,
    ) -> None:
        self.distillation, self.contrastive, self.ewc = distillation, contrastive, ewc
        self._means = Means()
        self._penalty: Tensor | None = None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the micro batch: an fp32 scalar. One forward pass serves all terms."""
        predictions = predict(model, batch, hidden=self.contrastive is not None)
        cross_entropy = total = cross_entropy_sum(predictions.logits, predictions.targets)
        terms = {}
        if self.distillation:
            terms["divergence"] = self.distillation.divergence_sum(predictions, batch)
            alpha = self.distillation.alpha
            total = alpha * terms["divergence"] + (1 - alpha) * cross_entropy
        if self.contrastive:
            weight, margin = self.contrastive
            assert predictions.hidden is not None
            terms["contrastive"] = contrastive_sum(
                predictions.hidden, predictions.targets, segments_of(batch, predictions.positions), margin
            )
            total = total + weight * terms["contrastive"]
        if terms:
            self._means.add(batch.units, crossEntropy=cross_entropy, **terms)
        return total

    def penalty(self, model: nn.Module) -> Tensor | None:
        """That of EWC."""
        if self.ewc is None:
            return None
        penalty = self.ewc.penalty()
        self._penalty = penalty.detach()
        return penalty

    def figures(self) -> dict[str, float]:
        """The terms apart, as means over the tokens of the global batch, and the penalty."""
        penalty = {} if self._penalty is None else {"ewcPenalty": float(self._penalty)}
        return self._means.take() | penalty
