"""spec.hyperparameters of a FineTuneJob: the optimisation."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from tunewright_api.base import (
    Model,
    Rule,
)
from tunewright_api.training_guards import Divergence


class Scheduler(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Precision(StrEnum):
    """Number format of the forward and backward pass."""

    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"
    FP8 = "FP8"


class Optimizer(StrEnum):
    """AdamW, and how it keeps its two moments."""

    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"


class AttentionBackend(StrEnum):
    """Which code computes attention."""

    AUTO = "Auto"
    EAGER = "Eager"
    SDPA = "SDPA"
    FLASH_ATTENTION_2 = "FlashAttention2"


class EarlyStopping(Model):
    """End the run when the loss on held-out records no longer falls. The weights of the last step are kept."""

    patience: int = Field(ge=1, le=1000, description="Evaluations in a row that may be no better before training ends.")
    min_delta: float = Field(default=0.0, ge=0, le=100, description="A loss is better if lower by more than this.")


class Hyperparameters(Model):
    """The optimisation: AdamW over epochs or steps. The global batch is microBatchSize x
    gradientAccumulationSteps x processes; with distributed.pipeline, x processes / stages."""

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
        default=1024,
        ge=16,
        le=1_048_576,
        description="Longest record, in tokens; dataset.onLongRecord says what becomes of longer ones.",
    )
    packing: bool = Field(
        default=False,
        description="Put the records of a micro batch into as few rows, as wide as its longest record, as hold them, "
        "instead of padding each. They do not see each other, so the loss stays the same. At most microBatchSize "
        "records share a row: set it to 2 or more, and to many where most are short. Not for method.prefixTuning and "
        "method.adapter, nor for objective.dpo.",
    )
    group_by_length: bool = Field(
        default=False,
        description="Put records of similar length into the same micro batch, for less padding: another order, in "
        "which each epoch still sees each record once.",
    )
    optimizer: Optimizer = Field(
        default=Optimizer.ADAMW,
        description="AdamW (fused, 8 bytes of state per trained weight), AdamW8bit (2 bytes: moments quantised in "
        "blocks of 256, Dettmers et al. 2022, arXiv:2110.02861) or PagedAdamW8bit (also moves them to CPU memory when "
        "the GPU runs full).",
    )
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000, description="Gradients are clipped to this norm.")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Decoupled weight decay of AdamW, on matrices; biases, norms and other vectors never decay.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    precision: Precision = Field(
        default=Precision.BF16,
        description="BF16 (mixed, fp32 master weights), FP16 (mixed, with loss scaling, for GPUs without BF16), FP32, "
        "or FP8 (BF16 with matrix products in 8 bits; NVIDIA Hopper or newer, method.full).",
    )
    attention_backend: AttentionBackend = Field(
        default=AttentionBackend.AUTO,
        description="Auto (FlashAttention2 where it is installed and the precision is not FP32, else SDPA), Eager, "
        "SDPA (PyTorch's own) or FlashAttention2. The log says which one is used.",
    )
    liger_kernels: bool = Field(
        default=False,
        description="Use Liger's fused kernels for norms, rotary positions and gated layers where device (NVIDIA GPU) "
        "and model allow; the log says if not.",
    )
    torch_compile: bool = Field(
        default=False,
        description="Compile each layer with torch.compile: a slow first step, then faster ones.",
    )
    neftune_noise_alpha: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="NEFTune (Jain et al. 2023, arXiv:2310.05914): noise on the embeddings while training, uniform "
        "within alpha / sqrt(length x width); 5 to 15 is usual, none if absent.",
    )
    attention_dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Dropout on attention weights instead of what the model's configuration says.",
    )
    divergence: Divergence | None = Field(
        default=None,
        description="End the run when the smoothed loss leaves its minimum for good; only a loss that is no number "
        "ends it if absent.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="End the run when the loss that evaluation.everySteps asks for no longer falls; never if absent.",
    )
    seed: int = Field(
        default=42,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split, the order, the initial adapter weights, dropout and noise.",
    )
