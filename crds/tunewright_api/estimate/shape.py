"""The numbers of a model that its memory follows from, read from the config.json of a Hugging Face model directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Families whose feed-forward has two matrices instead of the three of a gated one (Shazeer 2020, arXiv:2002.05202).
_UNGATED = frozenset(
    {
        "apertus",
        "arcee",
        "biogpt",
        "bloom",
        "codegen",
        "falcon",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "nemotron",
        "opt",
        "persimmon",
        "phi",
        "starcoder2",
    }
)
_ATTENTION = frozenset({"attention", "full_attention", "sliding_attention", "chunked_attention"})
_OTHER_LAYERS = ("mamba", "ssm", "conv", "lru", "linear_attention")


class UnknownModelError(ValueError):
    """The configuration lacks a number, or the model is of a kind that the formulas do not hold for."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the feed-forward.
        heads: Attention heads.
        kv_heads: Key and value heads (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245).
        head_size: Width of a head.
        vocabulary: Rows of the embedding.
        tied: Whether the head uses the embedding's matrix.
        gated: Whether the feed-forward has a gate.
        attention_bias: Whether the attention's matrices have biases.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    gated: bool = True
    attention_bias: bool = False

    @property
    def query(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Width of all key heads together; the values' is the same."""
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The matrices of a layer by the names that Llama gives them: (inputs, outputs)."""
        attention = {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
        }
        gate = {"gate_proj": (self.hidden, self.intermediate)} if self.gated else {}
        return {
            **attention,
            **gate,
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights in the matrices of one layer."""
        return sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def layer_parameters(self) -> int:
        """All weights of one layer."""
        biases = self.query + 2 * self.key if self.attention_bias else 0
        return self.linear_parameters + biases + 2 * self.hidden

    @property
    def names(self) -> dict[str, int]:
        """Parameters by the names that Llama gives them, with their sizes; biases with their matrices."""
        sizes = {f"mlp.{name}.weight": inputs * outputs for name, (inputs, outputs) in self.linears.items()}
        sizes = {name.replace("mlp", "self_attn") if name[4] in "qkvo" else name: n for name, n in sizes.items()}
        sizes["self_attn.q_proj.weight"] += self.layer_parameters - self.linear_parameters - 2 * self.hidden
        sizes |= {"input_layernorm.weight": self.hidden, "post_attention_layernorm.weight": self.hidden}
        head = {} if self.tied else {"lm_head.weight": self.embedding_parameters}
        return {
            "model.embed_tokens.weight": self.embedding_parameters,
            **{f"model.layers.{layer}.{name}": n for layer in range(self.layers) for name, n in sizes.items()},
            "model.norm.weight": self.hidden,
            **head,
        }

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding; the head has as many, its own or the same."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        matrices = 1 if self.tied else 2
        return self.layers * self.layer_parameters + matrices * self.embedding_parameters + self.hidden


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes, with the names that transformers gives the numbers.

    Raises:
        UnknownModelError: A number is missing, or the model is a mixture of experts or has layers without attention.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {**config, **text}
    _refuse_other_layers(config)
    hidden = _number(config, "hidden_size", "n_embd")
    heads = _number(config, "num_attention_heads", "n_head")
    kind = str(config.get("model_type", ""))
    return ModelShape(
        layers=_number(config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=_optional(config, "intermediate_size", "n_inner") or 4 * hidden,
        heads=heads,
        kv_heads=1 if _one_key(config, kind) else _optional(config, "num_key_value_heads") or heads,
        head_size=_optional(config, "head_dim") or hidden // heads,
        vocabulary=_number(config, "vocab_size"),
        # transformers ties unless the file says otherwise, but writes the field whenever it differs.
        tied=bool(config.get("tie_word_embeddings", kind in {"gpt2", "gemma", "gemma2", "gemma3_text"})),
        gated=kind not in _UNGATED,
        attention_bias=bool(config.get("attention_bias", kind.startswith("qwen2"))),
    )


def _refuse_other_layers(config: Mapping[str, Any]) -> None:
    """Any count of experts above 1, and any setting of layers that are not attention, whatever the family calls it."""
    for name, value in config.items():
        if "expert" in name and "per_tok" not in name and isinstance(value, int) and value > 1:
            raise UnknownModelError(f"it is a mixture of experts ({name}: {value}), which is not estimated")
        if value and any(name.startswith(other) for other in _OTHER_LAYERS):
            raise UnknownModelError(f"it has other layers than attention ({name}), which are not estimated")
    for name in ("layer_types", "layers_block_type", "block_types", "hybrid_layer_pattern"):
        kinds = config.get(name)
        if isinstance(kinds, list | tuple) and (other := sorted({str(kind) for kind in kinds} - _ATTENTION)):
            raise UnknownModelError(f"it has layers of {', '.join(other)} ({name}), which are not estimated")


def _one_key(config: Mapping[str, Any], kind: str) -> bool:
    """Whether all heads share one key and value (Shazeer 2019, arXiv:1911.02150), as Falcon's do unless it says so."""
    return kind == "falcon" and bool(config.get("multi_query", True)) and not config.get("new_decoder_architecture")


def _number(config: Mapping[str, Any], *names: str) -> int:
    found = _optional(config, *names)
    if found is None:
        raise UnknownModelError(f"config.json has no {names[0]}")
    return found


def _optional(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None
