"""spec.objective of a FineTuneJob: what training minimises."""

from typing import ClassVar

from pydantic import Field

from tunewright_api.base import Model, Rule
from tunewright_api.dataset import DatasetFormat
from tunewright_api.uris import PvcUri


class ReferenceSet(Model):
    """Records of what the model shall not forget."""

    uri: PvcUri = Field(description="Dataset file: pvc://CLAIM/PATH/FILE.")
    format: DatasetFormat = Field(description="As dataset.format; not Preference.")


class Ewc(Model):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): lambda / 2 x sum of F (w - w*)^2 is
    added to the loss, over the weights w that the method changes; w* is their value in the base model, and F the
    diagonal of the Fisher information, estimated from the answers of the reference set."""

    cel: ClassVar = (
        Rule(
            "self.reference.format != 'Preference'",
            "ewc.reference holds answers to keep, not pairs: write another format than Preference",
        ),
    )

    lambda_: float = Field(
        alias="lambda",
        default=1000.0,
        gt=0,
        le=1e12,
        description="Weight of the penalty: more keeps more of the base model and learns less.",
    )
    reference: ReferenceSet = Field(description="Where the Fisher information is estimated.")
    samples: int = Field(default=256, ge=1, le=1_000_000, description="Records of the reference set to use, at most.")


class Teacher(Model):
    """The model that is imitated."""

    uri: PvcUri = Field(
        description="Hugging Face model directory with the vocabulary of the base model: pvc://CLAIM/PATH."
    )


class Distillation(Model):
    """Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): alpha x T^2 x KL(teacher || student), both
    softened by the temperature T, + (1 - alpha) x cross entropy, per token of the assistant."""

    teacher: Teacher = Field(description="The model that is imitated; every process holds a copy of it.")
    temperature: float = Field(default=2.0, gt=0, le=100, description="T: both models' logits are divided by it.")
    alpha: float = Field(
        default=0.5, gt=0, le=1, description="Share of the teacher in the loss; 1 leaves the data's answers out."
    )


class Contrastive(Model):
    """An auxiliary contrastive loss, SimCTG (Su et al. 2022, arXiv:2202.06417): hidden states of different tokens of
    an answer whose cosine similarity is above 1 - margin are pushed apart, which counters repetitive answers."""

    weight: float = Field(default=1.0, gt=0, le=1000, description="Factor of this loss beside the cross entropy.")
    margin: float = Field(
        default=0.5, gt=0, le=2, description="Wanted distance, 1 - cosine similarity, of two tokens' hidden states."
    )


class Supervised(Model):
    """Cross entropy on what the assistant wrote, and what is added to it."""

    ewc: Ewc | None = Field(default=None, description="Keep what a reference set needs: against forgetting.")
    distillation: Distillation | None = Field(default=None, description="Imitate a teacher.")
    contrastive: Contrastive | None = Field(default=None, description="Keep the tokens' hidden states apart.")


class Dpo(Model):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) against the base model, over pairs of a
    chosen and a rejected answer."""

    beta: float = Field(
        default=0.1, gt=0, le=100, description="Scale of the implicit reward: more stays closer to the base model."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        le=0.49,
        description="Share of the pairs that are assumed to be labelled the wrong way round (conservative DPO).",
    )


class Objective(Model):
    """What training minimises: at most one of the fields, `supervised: {}` if there is none."""

    cel: ClassVar = (
        Rule(
            "!(has(self.supervised) && has(self.dpo))",
            "objective: write supervised or dpo, not both (neither means supervised)",
        ),
    )

    supervised: Supervised | None = Field(default=None, description="Learn the answers of the dataset.")
    dpo: Dpo | None = Field(default=None, description="Learn which of two answers is preferred.")


_PAIRS = (
    "((has(self.dataset.format) && self.dataset.format == 'Preference') || "
    "(has(self.dataset.mixture) && self.dataset.mixture.exists(p, p.format == 'Preference')))"
)
_EWC = "(has(self.objective.supervised) && has(self.objective.supervised.ewc))"

OBJECTIVE_RULES = (
    Rule(
        f"has(self.objective.dpo) == {_PAIRS}",
        "objective.dpo learns from pairs, and every other objective from answers: write `objective: {dpo: {}}` with "
        "dataset.format Preference, and only there",
    ),
    Rule(
        f"!{_EWC} || has(self.method.full) || (has(self.method.lora) && !self.method.lora.useDora) || "
        "(has(self.method.qlora) && !self.method.qlora.useDora)",
        "objective.supervised.ewc holds weights of the base near where they were: use it with method.full, or with "
        "lora or qlora without useDora",
    ),
    Rule(
        f"!{_EWC} || !has(self.distributed) || has(self.distributed.ddp) || "
        "(has(self.distributed.deepspeed) && self.distributed.deepspeed.zeroStage < 3)",
        "objective.supervised.ewc needs whole weights in every process: use distributed.ddp, or deepspeed with "
        "zeroStage 0 to 2",
    ),
)
"""What goes together with which objective: rules of FineTuneJobSpec, checked by the apiserver."""
