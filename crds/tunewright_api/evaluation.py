"""How base and tuned model are compared: spec.evaluation of a FineTuneJob, and the figures that come of it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    LongText,
    Model,
    Rule,
    StatusModel,
    Text,
)


class MetricName(StrEnum):
    """A figure on the held-out records."""

    LOSS = "Loss"
    PERPLEXITY = "Perplexity"
    ROUGE_L = "RougeL"
    EXACT_MATCH = "ExactMatch"


class Gate(Model):
    """A bound that the tuned model must keep."""

    cel: ClassVar = (Rule("has(self.min) != has(self.max)", "gates: write exactly one of min and max for each metric"),)

    metric: MetricName = Field(description="Loss, Perplexity, RougeL or ExactMatch.")
    min: float | None = Field(default=None, description="The value must be at least this.")
    max: float | None = Field(default=None, description="The value must be at most this.")


class Evaluation(Model):
    """How base and tuned model are compared on the held-out records."""

    max_records: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Held-out records to evaluate at most; of more, hyperparameters.seed picks a random sample.",
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="Tokens to generate for each record.")
    sample_prompts: list[Annotated[str, StringConstraints(min_length=1, max_length=500)]] | None = Field(
        default=None,
        max_length=5,
        description="Questions that both models answer, for people to read in status.samples.",
    )
    gates: list[Gate] | None = Field(
        default=None,
        max_length=8,
        description="Bounds on the tuned model; one that is missed fails the job before anything is exported.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )


class MetricResult(StatusModel):
    """One figure on the held-out records."""

    metric: MetricName = Field(description="Name of the figure.")
    base: float = Field(description="Value of the base model.")
    tuned: float = Field(description="Value of the tuned model.")
    gate: Text | None = Field(default=None, description="The bound asked for, for example <= 1.5.")
    passed: bool | None = Field(default=None, description="Whether the tuned model keeps the bound.")


class Sample(StatusModel):
    """One question and both answers."""

    prompt: LongText = Field(description="The question.")
    base: LongText = Field(description="Answer of the base model.")
    tuned: LongText = Field(description="Answer of the tuned model.")
