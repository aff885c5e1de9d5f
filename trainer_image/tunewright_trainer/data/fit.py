"""Whether a run and its base model go together, as far as the headers of its files tell. Pure: no torch."""

import sys

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data.model_files import ModelFiles, layers
from tunewright_trainer.errors import StageError

TESTED = frozenset(
    {
        *(
            "apertus",
            "arcee",
            "cohere",
            "cohere2",
            "ernie4_5",
            "exaone4",
            "gemma",
            "gemma2",
            "gemma3_text",
            "glm",
            "glm4",
        ),
        *("gpt2", "gpt_bigcode", "gpt_neox", "granite", "helium", "hunyuan_v1_dense", "llama", "ministral"),
        *(
            "ministral3",
            "mistral",
            "mixtral",
            "nemotron",
            "olmo",
            "olmo2",
            "olmo3",
            "olmoe",
            "persimmon",
            "phi",
            "phi3",
        ),
        *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2"),
    }
)
"""Values of `model_type` for which a test shows that packed records do not see each other, and that linear layers have
the names of their tensors in the files. Others may carry a state from record to record (mamba, lfm2), or count
positions along the whole row (opt, bloom, mpt)."""

_HEADS = frozenset({"lm_head", "embed_out"})
_LEARNED = frozenset({"wpe", "embed_positions", "position_embeddings"})
_TABLES = frozenset({"gptj", "codegen"})
"""Rotary, but from a table of this length."""


def check_fit(config: TrainerConfig, files: ModelFiles) -> None:
    """Refuse what the model cannot do.

    Raises:
        StageError: INVALID_CONFIG.
    """
    h, method = config.hyperparameters, config.method
    if h.packing and files.model_type not in TESTED:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"hyperparameters.packing: in models of type {files.model_type} packed records may see each other: set "
            "packing: false",
        )
    if method.low_rank is not None and method.low_rank.target_modules:
        field = f"method.{'lora' if method.lora else 'qlora'}.targetModules"
        _check_targets(field, method.low_rank.target_modules, files)
    _check_positions(h.sequence_length, files)


def remarks(config: TrainerConfig, files: ModelFiles) -> list[str]:
    """What the model can do, but perhaps not well."""
    length, (key, limit) = config.hyperparameters.sequence_length, _positions(files)
    if length <= limit or _scaled(files):
        return []
    return [
        f"hyperparameters.sequenceLength {length} is beyond the {limit} positions that the model knows ({key}): it "
        f"may read longer records badly, so use {limit} or a model with longer rotary positions"
    ]


def refuse_tied(field: str, targets: list[str]) -> StageError:
    """LoRA on the one matrix that is both embedding and head: merged, an update of one changes the other too."""
    return StageError(
        ExitCode.INVALID_CONFIG,
        f"{field}: {', '.join(targets)} cannot be adapted, because embedding and head of this model are one matrix "
        "(tie_word_embeddings) and merging would change both: leave it out",
    )


def refuse_unknown(field: str, targets: list[str], known: set[str]) -> StageError:
    """LoRA on modules that the model does not have."""
    return StageError(
        ExitCode.INVALID_CONFIG,
        f"{field}: this model has no linear layer named {', '.join(targets)}: use some of {', '.join(sorted(known))}, "
        "or leave targetModules out to adapt all of them",
    )


def _check_targets(field: str, targets: list[str], files: ModelFiles) -> None:
    embeddings = {module.rpartition(".")[2] for module in files.embeddings}
    ends = {target: target.rpartition(".")[2] for target in targets}
    tied = [target for target, end in ends.items() if end in embeddings | _HEADS]
    if tied and _tied(files):
        raise refuse_tied(field, tied)
    inside = {module.rpartition(".")[2] for module in files.matrices if layers([f"{module}."])}
    unknown = [target for target, end in ends.items() if end not in inside | embeddings | _HEADS]
    if unknown and files.model_type in TESTED:
        raise refuse_unknown(field, unknown, inside)


def _tied(files: ModelFiles) -> bool:
    declared = files.text.get("tie_word_embeddings")
    if isinstance(declared, bool):
        return declared
    return not any(module.rpartition(".")[2] in _HEADS for module in files.matrices)


def _positions(files: ModelFiles) -> tuple[str, int]:
    """The longest row that the model knows, and what config.json calls it; no limit where it does not say."""
    named = ((key, files.text[key]) for key in ("max_position_embeddings", "n_positions") if files.text.get(key))
    return next(named, ("", sys.maxsize))


def _check_positions(length: int, files: ModelFiles) -> None:
    key, limit = _positions(files)
    learned = any(module.rpartition(".")[2] in _LEARNED for module in files.matrices)
    if length > limit and (learned or files.model_type in _TABLES):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"hyperparameters.sequenceLength: the model has {limit} positions ({key}) and no more: use {limit} or less",
        )


def _scaled(files: ModelFiles) -> bool:
    """Whether rotary positions are stretched; config.json has one rule, or one per type of layer."""
    rule = files.text.get("rope_scaling") or files.text.get("rope_parameters") or {}
    rules = [rule, *(part for part in rule.values() if isinstance(part, dict))]
    return any(part.get("rope_type", part.get("type", "default")) != "default" for part in rules)
