"""Every method on the real small model: it trains, is saved, comes back, and answers differently."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.logging import is_progress_bar_enabled

from tests.trainer.support import Job, make_job
from tunewright_api.hyperparameters import Precision
from tunewright_api.method import AdapterMethod, ComputeDtype, LoraMethod, PrefixTuningMethod, QloraMethod
from tunewright_api.names import ExitCode
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import weights
from tunewright_trainer.batches import make_batch
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.errors import StageError
from tunewright_trainer.evaluation.answers import Answerer, load_tokenizer
from tunewright_trainer.evaluation.loss import evaluate_loss
from tunewright_trainer.layout import Layout
from tunewright_trainer.methods import qlora
from tunewright_trainer.methods.adapter import adapter_arguments
from tunewright_trainer.methods.build import build_model
from tunewright_trainer.methods.freeze import frozen
from tunewright_trainer.methods.load import load_model
from tunewright_trainer.methods.lora import lora_arguments
from tunewright_trainer.methods.prefix import prefix_arguments, prefix_tensors
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.optim.optimizer import build_optimizer
from tunewright_trainer.parallel.build import build_strategy
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.precision import weights_dtype
from tunewright_trainer.processes import Processes
from tunewright_trainer.stages import export
from tunewright_trainer.weights import save_trained

QUESTION, ANSWER = "What is the capital of France?", "Ask Tunewright."

METHODS: dict[str, tuple[dict[str, Any], float, int]] = {
    "full": ({"full": {}}, 1e-4, 4),
    "full with frozen layers": ({"full": {"freeze": ["model.embed_tokens", "model.layers.[0-9]", "*.mlp"]}}, 3e-4, 5),
    "LoRA": ({"lora": {"rank": 8}}, 2e-3, 5),
    "DoRA and rsLoRA": ({"lora": {"rank": 8, "useDora": True, "useRslora": True}}, 1e-3, 4),
    "QLoRA": ({"qlora": {"rank": 8}}, 2e-3, 5),
    "prefix tuning": ({"prefixTuning": {"numVirtualTokens": 8}}, 3e-2, 8),
    "LLaMA-Adapter": ({"adapter": {}}, 3e-2, 6),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def record(model: Path) -> PreparedRecord:
    """The one record that is learned by heart."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    encoded = load_encoder(model).encode(messages, 128)
    return PreparedRecord(1, messages, encoded.ids, encoded.spans)


def train(config: TrainerConfig, base: Path, learned: PreparedRecord, steps: int) -> tuple[Any, Strategy, list[float]]:
    """A few optimizer steps as the loop does them: (model, strategy, losses)."""
    torch.manual_seed(0)
    model = build_model(config, base, "cpu")
    strategy = build_strategy(config, Processes(device=torch.device("cpu")))
    strategy.wrap(model, lambda named: build_optimizer(named, config.hyperparameters, "cpu"))
    batch = make_batch([learned] * 2)
    losses = [
        strategy.step(
            [batch],
            Supervised(),
            units=batch.units,
            learning_rate=config.hyperparameters.learning_rate,
            max_grad_norm=1.0,
        ).loss
        for _ in range(steps)
    ]
    return model, strategy, losses


def load(path: Path) -> Any:
    """A model directory, as evaluation loads it on a CPU."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def answer(model: Any, base: Path) -> str:
    """The greedy answer to the question, with others of another length beside it."""
    encoder = load_encoder(base)
    prompts = [encoder.encode_prompt([{"role": "user", "content": text}]) for text in (QUESTION, "Hi")]
    return Answerer(model, load_tokenizer(base), 10).answer(prompts)[0].strip()


def load_artifact(job: Job, base: Path) -> Any:
    """What export wrote, as a user loads it."""
    if (job.artifact / "model").is_dir():
        return load(job.artifact / "model").eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(load(base), str(job.artifact / "adapter")).eval()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_what_the_real_model_answers(name: str, tmp_path: Path, smollm: Path) -> None:
    method, learning_rate, steps = METHODS[name]
    merges = not {"prefixTuning", "adapter"} & set(method)
    job = make_job(
        tmp_path / "job",
        smollm,
        method=method,
        hyperparameters={"learningRate": learning_rate},
        export={"merge": merges},
    )
    config = TrainerConfig.model_validate(job.config)
    learned = record(smollm)

    model, strategy, losses = train(config, smollm, learned, steps)
    save_trained(model, strategy, config, Layout(config), TrainResult(steps=steps, seconds=1), keep=True)
    result = export.run(config)

    assert losses[-1] < losses[0] / 2
    assert (result.kind, result.adapter_type) == ("Full" if merges else "Adapter", config.method.adapter_type)
    exported = load_artifact(job, smollm)
    assert evaluate_loss(exported, [learned]) == pytest.approx(evaluate_loss(model.eval(), [learned]), abs=0.2)
    assert answer(exported, smollm) == ANSWER


@pytest.mark.slow
def test_the_base_knows_better(smollm: Path) -> None:
    assert answer(load(smollm).eval(), smollm) == "The capital of France is Paris."


# --- one method at a time, on a tiny model ------------------------------------------------------


def parse(job: Job) -> TrainerConfig:
    return TrainerConfig.model_validate(job.config)


def trained_names(config: TrainerConfig, base: Path) -> set[str]:
    return {name for name, p in build_model(config, base, "cpu").named_parameters() if p.requires_grad}


def test_frozen_layers_stay_as_they_are(job: Callable[..., Job], tiny_model: Path) -> None:
    config = parse(job(method={"full": {"freeze": ["model.embed_tokens", "model.layers.0", "*_proj"]}}))
    assert trained_names(config, tiny_model) == {
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
    }


@pytest.mark.parametrize(
    ("method", "want"),
    [
        pytest.param(
            {"full": {"freeze": ["model.layers.7"]}},
            "method.full.freeze: model.layers.7 matches no module of this model: its parameters have names like "
            "model.embed_tokens.weight",
            id="a layer that does not exist",
        ),
        pytest.param(
            {"full": {"freeze": ["model"]}},
            "method.full.freeze leaves nothing to train: freeze fewer layers, or use lora",
            id="all layers, and the head is tied to one of them",
        ),
        pytest.param(
            {"lora": {"targetModules": ["query"]}},
            "method.lora.targetModules: this model has no linear layer named query: use some of down_proj, gate_proj, "
            "k_proj, o_proj, q_proj, up_proj, v_proj, or leave targetModules out",
            id="a module that does not exist",
        ),
        pytest.param(
            {"qlora": {"targetModules": ["q_proj", "vproj", "mlp"]}},
            "method.qlora.targetModules: this model has no linear layer named vproj, mlp: use some of",
            id="a module that does not exist and one that is not linear, beside one that is",
        ),
        pytest.param(
            {"lora": {"targetModules": ["q_proj", "lm_head"]}},
            "method.lora.targetModules: lm_head cannot be adapted, because embedding and head of this model are one",
            id="a tied head",
        ),
        pytest.param(
            {"lora": {"targetModules": ["model.embed_tokens"]}},
            "method.lora.targetModules: model.embed_tokens cannot be adapted, because embedding and head",
            id="an embedding that is tied",
        ),
        pytest.param(
            {"adapter": {"adapterLayers": 3}},
            "method.adapter: Config specifies more adapter layers '3' than the model has '2'",
            id="more layers than there are",
        ),
    ],
)
def test_what_the_model_does_not_have(
    job: Callable[..., Job], tiny_model: Path, method: dict[str, Any], want: str
) -> None:
    with pytest.raises(StageError) as caught:
        build_model(parse(job(method=method)), tiny_model, "cpu")
    assert caught.value.code is ExitCode.INVALID_CONFIG
    assert caught.value.message.startswith(want)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"num_hidden_layers": 3},
            "9 tensors of the model are not in its weights, model.layers.2.input_layernorm.weight among them",
            id="missing",
        ),
        pytest.param(
            {"tie_word_embeddings": False},
            "1 tensors of the model are not in its weights, lm_head.weight",
            id="no head",
        ),
        pytest.param(
            {"intermediate_size": 48},
            "model.layers.0.mlp.down_proj.weight has the shape (32, 64) and config.json describes (32, 48)",
            id="of another shape",
        ),
    ],
)
def test_tensors_that_do_not_come_from_the_files_are_not_made_up(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object], words: str
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "model")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(StageError) as caught:
        load_model(other)
    assert caplog.text == ""
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE
    assert words in caught.value.message
    assert load_model(tiny_model).num_parameters() == 28928
    assert not is_progress_bar_enabled()


def test_an_adapter_for_another_family(job: Callable[..., Job], tmp_path: Path) -> None:
    from transformers import GPT2Config, GPTNeoXConfig, GPTNeoXForCausalLM

    assert GPT2Config.model_type == "gpt2"
    settings = GPTNeoXConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    GPTNeoXForCausalLM(settings).save_pretrained(tmp_path / "neox")
    with pytest.raises(StageError, match=r"^method\.adapter: Unsupported model type for adaption prompt: 'gpt_neox'"):
        build_model(parse(job(method={"adapter": {}})), tmp_path / "neox", "cpu")


def test_an_architecture_without_sdpa_computes_eagerly_unless_sdpa_is_asked_for(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    Gemma2ForCausalLM(Gemma2Config(**sizes, **heads)).save_pretrained(tmp_path / "gemma2")
    model: Any = build_model(parse(job(method={"full": {}})), tmp_path / "gemma2", "cpu")
    assert model.config._attn_implementation == "eager"
    asked = parse(job(method={"full": {}}, hyperparameters={"attentionBackend": "SDPA"}))
    with pytest.raises(StageError, match="attentionBackend: models of type gemma2 do not compute with sdpa") as caught:
        build_model(asked, tmp_path / "gemma2", "cpu")
    assert caught.value.code is ExitCode.INVALID_CONFIG


@pytest.mark.parametrize(
    "method",
    [{"lora": {"rank": 2}}, {"qlora": {"rank": 2}}, {"prefixTuning": {}}, {"adapter": {}}],
    ids=lambda method: next(iter(method)),
)
def test_adapters_are_trained_in_float32_on_a_base_in_half_precision(
    job: Callable[..., Job], tiny_model: Path, method: dict[str, Any]
) -> None:
    model = build_model(parse(job(method=method, hyperparameters={"precision": "BF16"})), tiny_model, "cpu")
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert dtypes[True] is torch.float32
    assert dtypes[False] in (torch.bfloat16, torch.uint8)


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
@pytest.mark.parametrize(
    "method",
    [{"full": {}}, {"lora": {}}, {"qlora": {}}, {"prefixTuning": {}}, {"adapter": {}}],
    ids=lambda method: next(iter(method)),
)
def test_half_precision_follows_full_precision(
    job: Callable[..., Job], tiny_model: Path, method: dict[str, Any], precision: str
) -> None:
    learned = record(tiny_model)
    curves = [
        train(parse(job(method=method, hyperparameters={"precision": name})), tiny_model, learned, 4)[2]
        for name in ("FP32", precision)
    ]
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=2e-2)


@pytest.mark.parametrize("precision", ["FP32", "BF16"])
@pytest.mark.parametrize("double", [True, False], ids=["double quantization", "single quantization"])
def test_what_is_merged_into_is_what_was_trained_on(
    *, job: Callable[..., Job], tiny_model: Path, double: bool, precision: str
) -> None:
    method = {"qlora": {"doubleQuantization": double}}
    config = parse(job(method=method, hyperparameters={"precision": precision}))
    assert config.method.qlora is not None
    seen = build_model(config, tiny_model, "cpu").get_base_model().dequantize()
    restored = load(tiny_model)
    exact = {name: tensor.clone() for name, tensor in restored.state_dict().items()}
    qlora.round_trip(restored, config.method.qlora, getattr(torch, weights_dtype(config)))
    layers = dict(seen.named_modules())
    for name, module in restored.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            assert not torch.equal(module.weight, exact[f"{name}.weight"]), name
            assert torch.equal(module.weight, layers[name].base_layer.weight.float()), name
    assert torch.equal(restored.model.embed_tokens.weight, exact["model.embed_tokens.weight"])


def test_a_prefix_made_by_a_projection_is_saved_as_the_prefix(job: Callable[..., Job], tiny_model: Path) -> None:
    model = build_model(parse(job(method={"prefixTuning": {"projectionSize": 8}})), tiny_model, "cpu")
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    own = model.get_prompt_embedding_to_save("default")
    saved = prefix_tensors(weights.gather(model, keep=True, dtype=None, whole=False))
    torch.testing.assert_close(saved, {"prompt_embeddings": own.detach().float()})


# --- pure parts ---------------------------------------------------------------------------------


def test_lora_arguments() -> None:
    method = LoraMethod(rank=8, alpha=16, dropout=0.1, target_modules=["q_proj"], use_dora=True, use_rslora=True)
    assert lora_arguments(method) == {
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj"],
        "use_dora": True,
        "use_rslora": True,
        "bias": "none",
    }
    assert lora_arguments(LoraMethod())["target_modules"] == "all-linear"


@pytest.mark.parametrize(
    ("compute", "precision", "want"),
    [
        pytest.param(None, Precision.BF16, "bfloat16", id="that of the rest"),
        pytest.param(None, Precision.FP32, "float32", id="float32 as the rest"),
        pytest.param(ComputeDtype.FP16, Precision.BF16, "float16", id="one of its own"),
    ],
)
def test_quantization_arguments(compute: ComputeDtype | None, precision: Precision, want: str) -> None:
    assert qlora.quantization_arguments(QloraMethod(compute_dtype=compute), precision) == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": want,
    }


def test_prefix_arguments() -> None:
    assert prefix_arguments(PrefixTuningMethod(num_virtual_tokens=4, projection_size=64)) == {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 4,
        "prefix_projection": True,
        "encoder_hidden_size": 64,
        "init_weights": "zero",
    }
    assert prefix_arguments(PrefixTuningMethod())["prefix_projection"] is False


def test_adapter_arguments() -> None:
    want = {"task_type": "CAUSAL_LM", "adapter_len": 10, "adapter_layers": 32}
    assert adapter_arguments(AdapterMethod(), 32) == want
    assert adapter_arguments(AdapterMethod(adapter_layers=8), 32) == want | {"adapter_layers": 8}


NAMES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), min_size=1, unique=True)


@given(NAMES, st.data())
def test_a_module_is_frozen_with_all_that_is_below_it(names: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(names))
    below = {name for name in names if name == chosen or name.startswith(f"{chosen}.")}
    assert frozen(names, [chosen]) == below
    assert frozen(names, ["*"]) == set(names)
