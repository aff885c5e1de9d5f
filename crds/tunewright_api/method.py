"""spec.method of a FineTuneJob: how the weights are changed."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from tunewright_api.base import (
    Model,
    Rule,
)

_SET: JsonDict = {"x-kubernetes-list-type": "set"}


class FullMethod(Model):
    """Full fine-tuning: every weight is trained, but for the frozen ones."""

    freeze: list[Annotated[str, StringConstraints(min_length=1, max_length=127)]] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Names of modules or parameters that stay as they are, with all that is below them; `*` stands for "
        "any characters and `[0-7]` for one of them: model.embed_tokens, model.layers.[0-7], *.mlp.",
        json_schema_extra=_SET,
    )


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
        json_schema_extra=_SET,
    )
    use_dora: bool = Field(
        default=False,
        description="DoRA: train the length of each weight row apart from its direction (Liu et al. 2024, "
        "arXiv:2402.09353). Better at low ranks, slower; merge it, since vLLM loads no DoRA adapters.",
    )
    use_rslora: bool = Field(
        default=False,
        description="rsLoRA: the scale is alpha / sqrt(rank), so that high ranks learn as well (Kalajdzievski 2023, "
        "arXiv:2312.03732).",
    )


class ComputeDtype(StrEnum):
    """Number format of the matrix products of quantised layers."""

    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"


class QloraMethod(LoraMethod):
    """LoRA on a base in 4 bits (Dettmers et al. 2023, arXiv:2305.14314): NF4, blocks of 64 weights."""

    double_quantization: bool = Field(
        default=True, description="Quantise the scales of the blocks as well: 0.37 bits less per weight."
    )
    compute_dtype: ComputeDtype | None = Field(
        default=None,
        description="BF16, FP16 or FP32: the format weights are restored to in a product; that of "
        "hyperparameters.precision if absent.",
    )


class PrefixTuningMethod(Model):
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): trained keys and values before those of the text, in each
    layer."""

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024, description="Positions of the prefix.")
    projection_size: int | None = Field(
        default=None,
        ge=1,
        le=16384,
        description="Hidden width of a network that makes the prefix while training and is dropped afterwards; the "
        "prefix itself is trained if absent.",
    )


class AdapterMethod(Model):
    """LLaMA-Adapter (Zhang et al. 2023, arXiv:2303.16199): trained tokens that the attention of the upper layers reads
    through a gate which starts at 0. For Llama and Mistral models."""

    adapter_len: int = Field(default=10, ge=1, le=1024, description="Tokens per layer.")
    adapter_layers: int | None = Field(
        default=None, ge=1, le=512, description="Layers that get tokens, counted from the top; all if absent."
    )


class AdapterType(StrEnum):
    """What an exported adapter is. vLLM loads Lora only."""

    LORA = "Lora"
    DORA = "Dora"
    PREFIX_TUNING = "PrefixTuning"
    LLAMA_ADAPTER = "LlamaAdapter"


class Method(Model):
    """How the weights are changed: exactly one of the fields."""

    cel: ClassVar = (
        Rule(
            "[has(self.full), has(self.lora), has(self.qlora), has(self.prefixTuning), has(self.adapter)]"
            ".filter(given, given).size() == 1",
            "method: write exactly one of `full: {}`, `lora: {…}`, `qlora: {…}`, `prefixTuning: {…}` and "
            "`adapter: {…}`",
        ),
    )

    full: FullMethod | None = Field(default=None, description="Train every weight, or all but some layers.")
    lora: LoraMethod | None = Field(default=None, description="Train low-rank adapters.")
    qlora: QloraMethod | None = Field(
        default=None, description="Train low-rank adapters on a base in 4 bits: a quarter of the memory for weights."
    )
    prefix_tuning: PrefixTuningMethod | None = Field(
        default=None,
        description="Train a prefix of virtual tokens. It cannot be merged, and vLLM does not serve it.",
    )
    adapter: AdapterMethod | None = Field(
        default=None, description="Train a LLaMA-Adapter. It cannot be merged, and vLLM does not serve it."
    )

    @property
    def low_rank(self) -> LoraMethod | None:
        """lora or qlora: what can be merged into the weights of the base."""
        return self.lora or self.qlora

    @property
    def adapter_type(self) -> AdapterType | None:
        """What is trained beside a frozen base; None for full."""
        if self.low_rank is not None:
            return AdapterType.DORA if self.low_rank.use_dora else AdapterType.LORA
        if self.prefix_tuning is not None:
            return AdapterType.PREFIX_TUNING
        return AdapterType.LLAMA_ADAPTER if self.adapter is not None else None
