"""spec.hyperparameters of a FineTuneJob: the optimisation."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from tunewright_api.base import (
    Model,
    Rule,
)


class Scheduler(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Precision(StrEnum):
    """Number format of the forward and backward pass."""

    BF16 = "BF16"
    FP32 = "FP32"


class Hyperparameters(Model):
    """The optimisation: AdamW over epochs or steps. The global batch is microBatchSize x
    gradientAccumulationSteps x processes."""

    cel: ClassVar = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            "hyperparameters: write epochs or maxSteps, not both (neither means 3 epochs)",
        ),
    )

    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Passes over the training records; 3 if maxSteps is absent too.",
    )
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs.")
    learning_rate: float = Field(default=2e-4, gt=0, le=1, description="Peak learning rate.")
    scheduler: Scheduler = Field(
        default=Scheduler.COSINE, description="Learning rate after the warm-up: Cosine, Linear or Constant."
    )
    warmup_ratio: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0."
    )
    micro_batch_size: int = Field(
        default=1, ge=1, le=1024, description="Records per process in one forward and backward pass."
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096, description="Micro batches per optimizer step.")
    sequence_length: int = Field(
        default=1024, ge=16, le=1_048_576, description="Longest record, in tokens; longer ones are truncated."
    )
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000, description="Gradients are clipped to this norm.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    precision: Precision = Field(default=Precision.BF16, description="BF16 (mixed, fp32 master weights) or FP32.")
    seed: int = Field(
        default=42,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split, the order and the initial adapter weights.",
    )
