"""spec.method of a FineTuneJob: how the weights are changed."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    Model,
    Rule,
)


class FullMethod(Model):
    """Full fine-tuning: every weight is trained."""


class LoraMethod(Model):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): W + (alpha / rank) B A."""

    rank: int = Field(default=16, ge=1, le=512, description="Rank r of the update matrices A and B.")
    alpha: int = Field(default=32, ge=1, le=2048, description="Scale: the update is multiplied by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the input of the adapter.")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Names of the modules to adapt, for example q_proj; every linear layer but the head if absent.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Method(Model):
    """How the weights are changed: exactly one of the fields."""

    cel: ClassVar = (
        Rule("has(self.full) != has(self.lora)", "method: write exactly one of `full: {}` and `lora: {…}`"),
    )

    full: FullMethod | None = Field(default=None, description="Train every weight.")
    lora: LoraMethod | None = Field(default=None, description="Train low-rank adapters.")
