"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531, section 2), per token of the assistant:

alpha x T^2 x KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) x cross entropy
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunewright_trainer.objectives.forward import Predictions, predict
from tunewright_trainer.objectives.likelihood import softened_kl_sum
from tunewright_trainer.objectives.objective import Batch


@dataclass(frozen=True)
class Distillation:
    """A frozen teacher on the device of the student.

    Attributes:
        teacher: In evaluation mode, without gradients.
        temperature: T.
        alpha: Share of the teacher.
    """

    teacher: nn.Module
    temperature: float
    alpha: float

    def divergence_sum(self, student: Predictions, batch: Batch) -> Tensor:
        """T^2 x KL, summed over the counted positions.

        Architectures round the size of their logits up; what no token of the shared vocabulary has is left out.
        """
        with torch.no_grad():
            teacher = predict(self.teacher, batch)
        width = min(student.logits.shape[-1], teacher.logits.shape[-1])
        return softened_kl_sum(
            student.logits[..., :width], teacher.logits[..., :width], student.targets, self.temperature
        )
