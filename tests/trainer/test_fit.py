"""What a run asks for against what the base model is: by tables of headers, and by tiny models of each architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.support import make_job
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.batches import Packing, make_batch
from tunewright_trainer.data.fit import TESTED, check_fit
from tunewright_trainer.data.model_files import ModelFiles, causal_types, read_model
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.errors import StageError
from tunewright_trainer.objectives.supervised import Supervised

SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FEW_EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere2": WINDOWS,
    "gemma2": WINDOWS,
    "gemma3_text": WINDOWS,
    "mixtral": FEW_EXPERTS,
    "olmo3": WINDOWS,
    "olmoe": FEW_EXPERTS,
    "qwen2_moe": FEW_EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": FEW_EXPERTS,
}


def small(model_type: str) -> Any:
    """A random model whose attention counts: with the usual small weights a mistake would drown."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(SMALL | SPECIAL.get(model_type, {})))
    backend = "eager" if model_type == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=backend).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def packed_and_padded(model: Any) -> tuple[float, float]:
    """The loss of four records in as few rows as hold them, and in a row each."""
    lengths = [12, 7, 5, 9]
    records = [
        PreparedRecord(1, [], [5 + 3 * row + place for place in range(length)], [(0, length)])
        for row, length in enumerate(lengths)
    ]
    packed, padded = (float(Supervised().loss(model, make_batch(records, how))) for how in (Packing.ROWS, Packing.NONE))
    return packed, padded


@pytest.mark.parametrize("model_type", sorted(TESTED))
def test_a_tested_architecture_keeps_packed_records_apart_and_names_layers_as_its_files_do(
    model_type: str, tmp_path: Path
) -> None:
    model = small(model_type)
    packed, padded = packed_and_padded(model)
    assert packed == pytest.approx(padded, rel=1e-5)
    model.save_pretrained(tmp_path)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    inside = {name for name in linear if ".layers." in name}
    assert inside <= set(read_model(tmp_path).matrices)


def test_records_do_see_each_other_in_others() -> None:
    packed, padded = packed_and_padded(small("opt"))
    assert packed != pytest.approx(padded, rel=1e-5)


def test_the_architectures_of_transformers_are_found_without_its_import() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert causal_types() == frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


LLAMA = {
    "model.embed_tokens.weight": (64, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.0.input_layernorm.weight": (8,),
}
HEAD = {"lm_head.weight": (64, 8)}
GPT2 = {"wte.weight": (64, 8), "wpe.weight": (128, 8), "h.0.attn.c_attn.weight": (8, 24)}


def fit(tmp_path: Path, described: dict[str, Any], shapes: dict[str, tuple[int, ...]], **asked: Any) -> None:
    config = TrainerConfig.model_validate(make_job(tmp_path, tmp_path, **asked).config)
    check_fit(config, ModelFiles(tmp_path, described, shapes))


def lora(*targets: str) -> dict[str, Any]:
    return {"method": {"lora": {"targetModules": list(targets)}}}


PACKED = {"hyperparameters": {"packing": True}}


@pytest.mark.parametrize(
    ("described", "shapes", "asked", "words"),
    [
        pytest.param(
            {"model_type": "mpt"},
            LLAMA,
            PACKED,
            "hyperparameters.packing: in models of type mpt packed records may see each other: set packing: false",
            id="packing in an architecture that is not tested",
        ),
        pytest.param(
            {"model_type": "llama"},
            LLAMA,
            lora("q_proj", "vproj", "mlp", "all-linear"),
            "method.lora.targetModules: this model has no linear layer named vproj, mlp, all-linear: use some of "
            "q_proj, up_proj, or leave targetModules out to adapt all of them",
            id="targets that the model does not have",
        ),
        pytest.param(
            {"model_type": "llama", "tie_word_embeddings": True},
            LLAMA | HEAD,
            lora("q_proj", "lm_head"),
            "method.lora.targetModules: lm_head cannot be adapted",
            id="a tied head",
        ),
        pytest.param(
            {"model_type": "llama"},
            LLAMA,
            lora("embed_tokens"),
            "method.lora.targetModules: embed_tokens cannot be adapted",
            id="an embedding that is tied, since there is no head",
        ),
        pytest.param(
            {"model_type": "gpt2", "n_positions": 128},
            GPT2,
            {},
            "hyperparameters.sequenceLength: the model has 128 positions (n_positions) and no more: use 128 or less",
            id="learned positions",
        ),
    ],
)
def test_refused(
    tmp_path: Path, described: dict[str, Any], shapes: dict[str, tuple[int, ...]], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(StageError) as caught:
        fit(tmp_path, described, shapes, **asked)
    assert caught.value.code is ExitCode.INVALID_CONFIG
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    ("described", "shapes", "asked"),
    [
        pytest.param({"model_type": "llama"}, LLAMA, PACKED, id="packing"),
        pytest.param({"model_type": "llama"}, LLAMA | HEAD, lora("lm_head"), id="a head of its own"),
        pytest.param({"model_type": "llama"}, LLAMA, lora("layers.0.self_attn.q_proj"), id="a layer by its path"),
        pytest.param({"model_type": "phimoe"}, LLAMA, lora("router"), id="names that files and model may not share"),
        pytest.param({"model_type": "llama", "max_position_embeddings": 128}, LLAMA, {}, id="rotary positions"),
        pytest.param({"model_type": "gpt2", "n_positions": 256}, GPT2, {}, id="learned positions that suffice"),
    ],
)
def test_accepted(
    tmp_path: Path, described: dict[str, Any], shapes: dict[str, tuple[int, ...]], asked: dict[str, Any]
) -> None:
    fit(tmp_path, described, shapes, **asked)
