"""Which code computes: the choice as a table, and each choice put into effect."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.support import Job
from tunewright_api.hyperparameters import AttentionBackend, Hyperparameters, Precision
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import kernels, log
from tunewright_trainer.errors import StageError
from tunewright_trainer.fp8 import Float8Linear, quantise, use_fp8
from tunewright_trainer.kernels import Kernels, Machine, choose
from tunewright_trainer.methods.build import build_model, choose_kernels

CPU = Machine("cpu", None, flash=False, liger_models=frozenset())
AMPERE = Machine("cuda", (8, 0), flash=True, liger_models=frozenset({"llama"}))
HOPPER = Machine("cuda", (9, 0), flash=False, liger_models=frozenset({"llama"}))
PLAIN = Kernels(attention="sdpa", liger=False, fp8=False, compile=False)


def wish(**fields: Any) -> Hyperparameters:
    return Hyperparameters(**fields)


@pytest.mark.parametrize(
    ("asked", "machine", "want"),
    [
        pytest.param(wish(), CPU, PLAIN, id="a CPU"),
        pytest.param(wish(), HOPPER, PLAIN, id="a GPU without flash-attn"),
        pytest.param(
            wish(), AMPERE, Kernels("flash_attention_2", liger=False, fp8=False, compile=False), id="a GPU with it"
        ),
        pytest.param(wish(precision=Precision.FP32), AMPERE, PLAIN, id="flash-attn knows half precision only"),
        pytest.param(
            wish(attention_backend=AttentionBackend.EAGER),
            CPU,
            Kernels("eager", liger=False, fp8=False, compile=False),
            id="asked for by name",
        ),
        pytest.param(
            wish(liger_kernels=True, precision=Precision.FP8, torch_compile=True),
            HOPPER,
            Kernels("sdpa", liger=True, fp8=True, compile=True),
            id="everything on Hopper",
        ),
        pytest.param(
            wish(liger_kernels=True),
            CPU,
            Kernels(
                "sdpa",
                liger=False,
                fp8=False,
                compile=False,
                notes=("ligerKernels: Liger has no kernels for this device, so PyTorch's own are used",),
            ),
            id="Liger without a GPU",
        ),
    ],
)
def test_choice(asked: Hyperparameters, machine: Machine, want: Kernels) -> None:
    assert choose(asked, "llama", machine) == want


def test_the_choice_in_words() -> None:
    assert Kernels("eager", liger=True, fp8=False, compile=True).in_words() == {
        "Attention": "eager",
        "Liger kernels": "used",
        "8-bit products": "not used",
        "torch.compile": "used",
    }


def test_a_model_that_liger_does_not_know() -> None:
    assert choose(wish(liger_kernels=True), "bloom", HOPPER).notes == (
        "ligerKernels: Liger has no kernels for models of type bloom, so PyTorch's own are used",
    )


def test_a_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not kernels.look_around("cpu").compiler


@pytest.mark.parametrize(
    ("asked", "machine", "says"),
    [
        pytest.param(wish(precision=Precision.FP8), CPU, "this process has a CPU: use BF16", id="FP8 on a CPU"),
        pytest.param(
            wish(precision=Precision.FP8),
            AMPERE,
            "this process has compute capability 8.0: use BF16",
            id="FP8 on Ampere",
        ),
        pytest.param(
            wish(attention_backend=AttentionBackend.FLASH_ATTENTION_2),
            CPU,
            "is not installed in this image, or has no GPU: use Auto or SDPA",
            id="flash-attn on a CPU",
        ),
        pytest.param(
            wish(torch_compile=True),
            replace(CPU, compiler=False),
            "compiler, and this image has none: set it to false, or give an image with g",
            id="compiling without a compiler",
        ),
        pytest.param(
            wish(attention_backend=AttentionBackend.FLASH_ATTENTION_2, precision=Precision.FP32),
            AMPERE,
            "computes in half precision only: use Auto or SDPA",
            id="flash-attn in float32",
        ),
    ],
)
def test_what_does_not_exist_here_is_refused(asked: Hyperparameters, machine: Machine, says: str) -> None:
    with pytest.raises(StageError, match=says) as caught:
        choose(asked, "llama", machine)
    assert caught.value.code is ExitCode.INVALID_CONFIG


# --- on the tiny model --------------------------------------------------------------------------


def build(job: Callable[..., Job], base: Path, **hyperparameters: Any) -> Any:
    config = TrainerConfig.model_validate(job(method={"full": {}}, hyperparameters=hyperparameters).config)
    torch.manual_seed(0)
    return build_model(config, base, "cpu")


IDS = torch.arange(24).reshape(2, 12)


def test_attention_and_its_dropout_reach_the_model(job: Callable[..., Job], tiny_model: Path) -> None:
    model = build(job, tiny_model, attentionBackend="Eager", attentionDropout=0.25)
    assert model.config._attn_implementation == "eager"
    assert {layer.self_attn.attention_dropout for layer in model.model.layers} == {0.25}
    first, second = model(IDS).logits, model(IDS).logits
    assert not torch.equal(first, second)


def test_the_log_says_which_kernels_were_chosen(
    job: Callable[..., Job], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(log, "info", lambda message, **fields: said.append((message, fields)))
    build(job, tiny_model, attentionBackend="Eager")
    config = TrainerConfig.model_validate(job(hyperparameters={"attentionBackend": "Eager"}).config)
    assert choose_kernels(config, tiny_model, "cpu").attention == "eager"
    assert said == [("kernels", {"attention": "eager", "liger": False, "fp8": False, "compile": False})]


def test_a_model_without_attention_dropout(job: Callable[..., Job], tmp_path: Path) -> None:
    from transformers import MambaConfig

    MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32).save_pretrained(tmp_path)
    with pytest.raises(StageError, match="attentionDropout: models of type mamba have none: remove it"):
        build(job, tmp_path, attentionDropout=0.1)


def test_noise_is_uniform_within_its_bound_and_only_in_training(job: Callable[..., Job], tiny_model: Path) -> None:
    noisy = build(job, tiny_model, neftuneNoiseAlpha=5).model.embed_tokens
    exact = build(job, tiny_model).model.embed_tokens
    assert torch.equal(noisy.eval()(IDS), exact(IDS))
    noise = (noisy.train()(IDS) - exact(IDS)).detach().abs()
    bound = 5 / (12 * 32) ** 0.5
    assert noise.max() <= bound
    assert float(noise.mean()) == pytest.approx(bound / 2, rel=0.1)


def test_gradient_checkpointing_changes_nothing_but_memory(job: Callable[..., Job], tiny_model: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build(job, tiny_model, gradientCheckpointing=checkpointing)
        assert model.is_gradient_checkpointing is checkpointing
        model(IDS, labels=IDS).loss.backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(*gradients)


def test_every_layer_is_compiled_and_keeps_its_names(
    job: Callable[..., Job], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[nn.Module, dict[str, Any]]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    plain, model = build(job, tiny_model), build(job, tiny_model, torchCompile=True)
    assert compiled == [(layer, {"dynamic": True}) for layer in model.model.layers]
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]


@pytest.mark.slow
def test_a_compiled_layer_computes_the_same(
    job: Callable[..., Job], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the graph of torch.compile but without its code generator, which takes a C++ compiler and minutes."""
    compile_layer = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compile_layer(self, **options, backend="eager"))
    plain, model = build(job, tiny_model), build(job, tiny_model, torchCompile=True)
    for ids in (IDS, IDS[:, :7]):
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_liger_gets_the_options_that_leave_the_loss_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from liger_kernel.transformers import monkey_patch

    asked: dict[str, Any] = {}

    def patch(*, rope: bool, rms_norm: bool, swiglu: bool, model: Any, cross_entropy: bool, **others: Any) -> None:
        asked.update(rope=rope, rms_norm=rms_norm, swiglu=swiglu, cross_entropy=cross_entropy, model=model, **others)

    monkeypatch.setitem(monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN, "llama", patch)
    model = SimpleNamespace(config=SimpleNamespace(model_type="llama"))
    kernels.apply_liger(model)
    assert asked == {
        "rope": True,
        "rms_norm": True,
        "swiglu": True,
        "cross_entropy": False,
        "model": model,
    }


# --- 8-bit products -----------------------------------------------------------------------------


def test_quantising_uses_the_whole_range() -> None:
    tensor = torch.tensor([-3.0, 0.5, 1.5])
    for dtype, largest, error in ((torch.float8_e4m3fn, 448.0, 2**-4), (torch.float8_e5m2, 57344.0, 2**-3)):
        rounded, scale = quantise(tensor, dtype)
        assert rounded.float().abs().max() == largest
        torch.testing.assert_close(rounded.float() * scale, tensor, rtol=error, atol=0)


@pytest.mark.parametrize("rows", [16, 10], ids=["whole rows", "rows that are filled up"])
def test_products_and_gradients_in_8_bits_are_near_the_exact_ones(rows: int) -> None:
    torch.manual_seed(0)
    exact, rounded = nn.Linear(64, 32), nn.Linear(64, 32)
    rounded.load_state_dict(exact.state_dict())
    rounded.__class__ = Float8Linear
    outputs = []
    for layer in (exact, rounded):
        inputs = torch.randn(2, rows, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = layer(inputs)
        output.square().sum().backward()
        outputs.append((output, inputs.grad, layer.weight.grad, layer.bias.grad))
    for want, got in zip(*outputs, strict=True):
        assert got.dtype is want.dtype
        assert got.shape == want.shape
        # Two roundings to 3 bits after the point (2 for gradients), each off by 4 % (8 %) of a number at most.
        assert (got - want).norm() < 0.1 * want.norm()


def test_the_head_and_odd_layers_stay_exact(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.model.layers[0].mlp.up_proj = nn.Linear(32, 65)
    assert use_fp8(model) == 2 * 7 - 1
    assert type(model.lm_head) is nn.Linear
    assert type(model.model.layers[0].mlp.up_proj) is nn.Linear
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.model.layers[1].mlp.up_proj(torch.ones(1, 3, 32)).dtype is torch.bfloat16
