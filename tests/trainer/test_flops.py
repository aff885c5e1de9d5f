"""MFU: the formula against published figures and PyTorch's own count, and when it is absent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import generate_latest
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer.test_report import record
from tunewright_api.results import Progress
from tunewright_api.trainer_config import JobIdentity
from tunewright_trainer.flops import ModelShape, Utilisation, peak_flops
from tunewright_trainer.hardware import Hardware, shape_of
from tunewright_trainer.telemetry import Telemetry


def test_mfu_of_palm() -> None:
    """PaLM, table 3 and appendix B: 540B on 6144 TPU v4 (275e12), 238.3K tokens/s at length 2048, 46.2 % MFU."""
    palm = ModelShape(weights=540_350_000_000, trained=540_350_000_000, layers=118, width=48 * 256)
    step = replace(record(1), tokens=2048, samples=1, tokens_per_second=238_300.0)
    assert Utilisation(palm, 6144 * 275e12).of(step) == pytest.approx(0.462, abs=0.001)


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "LoRA"])
def test_the_formula_against_what_pytorch_counts(tiny_model: Path, adapters: bool) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    if adapters:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    length = 64
    ids = torch.arange(length)[None] % 250
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = shape_of(model)
    assert shape
    want = shape.flops_per_token(length) * length
    # With adapters the first layer needs no gradient below its first adapter, which the formula does not know.
    assert want == pytest.approx(counter.get_total_flops(), rel=0.1 if adapters else 0.02)


def tiny(kind: str, **settings: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 128, "vocab_size": 256}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    config = AutoConfig.for_model(kind, **sizes, **heads, pad_token_id=0, eos_token_id=0, **settings)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}),
        ("qwen2_moe", {"num_experts": 8, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 64}),
        ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 4}),
    ],
)
def test_a_token_meets_some_experts_only(kind: str, settings: dict[str, Any]) -> None:
    model, length = tiny(kind, **settings), 64
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = shape_of(model)
    assert shape
    assert shape.flops_per_token(length) * length == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_experts_of_an_unknown_number_have_no_mfu() -> None:
    model = tiny("mixtral", num_local_experts=4)
    model.config.num_experts_per_tok = 0
    assert shape_of(model) is None
    assert Utilisation(None, 1e12).of(record(1)) is None


def test_a_preference_pair_is_two_rows() -> None:
    """The same tokens, in as many rows."""
    step = replace(record(1), tokens=1000, samples=2)
    pairs, single = Utilisation(SHAPE, 1e12, rows_per_record=2), Utilisation(SHAPE, 1e12)
    assert pairs.of(step) == single.of(replace(step, samples=4))


def test_a_table_that_is_only_looked_up_costs_nothing() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tied, untied = (
        shape_of(LlamaForCausalLM(LlamaConfig(vocab_size=100, tie_word_embeddings=tie, **sizes)))
        for tie in (True, False)
    )
    assert tied == untied
    assert tied
    assert tied.weights == 4 * 32 * 32 + 3 * 32 * 64 + 100 * 32


@pytest.mark.parametrize(
    ("device", "precision", "want"),
    [
        ("NVIDIA A100-SXM4-80GB", "BF16", 312e12),
        ("NVIDIA H100 80GB HBM3", "BF16", 989e12),
        ("NVIDIA H100 80GB HBM3", "FP8", 1979e12),
        ("NVIDIA H100 PCIe", "BF16", 756e12),
        ("NVIDIA H100 NVL", "FP8", 1671e12),
        ("NVIDIA H200", "FP16", 989e12),
        ("NVIDIA GH200 480GB", "BF16", 989e12),
        ("NVIDIA B200", "BF16", 2250e12),
        ("NVIDIA GB200", "FP8", 5000e12),
        ("NVIDIA L40S", "BF16", 362e12),
        ("NVIDIA L40", "BF16", 181e12),
        ("NVIDIA L4", "FP8", 242e12),
        ("NVIDIA A10G", "BF16", 70e12),
        ("Tesla V100-PCIE-16GB", "FP16", 112e12),
        ("Tesla V100-SXM2-16GB", "FP16", 125e12),
        ("Tesla T4", "FP16", 65e12),
        ("NVIDIA A100-SXM4-80GB", "FP8", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "BF16", None),
        ("NVIDIA RTX A1000", "BF16", None),
        ("NVIDIA RTX A4000", "BF16", None),
        ("NVIDIA T400", "FP16", None),
        ("NVIDIA A100-SXM4-80GB", "FP32", None),
        ("NVIDIA GeForce GTX 1080", "BF16", None),
        ("", "BF16", None),
    ],
)
def test_peaks(device: str, precision: str, want: float | None) -> None:
    assert peak_flops(device, precision) == want


# --- what is shown of it ----------------------------------------------------------------------

SHAPE = ModelShape(weights=100, trained=100, layers=1, width=8)


def samples(telemetry: Telemetry) -> dict[str, str]:
    """Samples of /metrics without labels."""
    lines = generate_latest(telemetry.registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_what_is_unknown_has_no_sample() -> None:
    telemetry = Telemetry(JobIdentity(namespace="team", name="guide", uid="1"))
    hardware = Hardware(Utilisation(SHAPE, None), memory=None)
    step = record(1)
    telemetry.observe_step(step, hardware.utilisation.of(step))
    late = {f"tunewright_train_{name}" for name in ("mfu", "eval_loss", "gpu_memory_percent")}
    assert not late & set(samples(telemetry))
    assert hardware.memory_percent(step) is None

    hardware = Hardware(Utilisation(SHAPE, 1e9), memory=4 * 2**30)
    telemetry.observe_step(step, hardware.utilisation.of(step))
    percent = hardware.memory_percent(step)
    telemetry.publish(Progress(step=1, total_steps=2, epoch=0, eval_loss=1.5, gpu_memory_percent=percent))
    shown = samples(telemetry)
    assert float(shown["tunewright_train_mfu"]) == pytest.approx(2000 * (600 + 12 * 8 * 250) / 1e9)
    assert float(shown["tunewright_train_eval_loss"]) == 1.5
    assert float(shown["tunewright_train_gpu_memory_percent"]) == 25
    assert float(shown["tunewright_train_samples_per_second"]) == 8
    assert float(shown["tunewright_train_data_wait_share"]) == pytest.approx(0.1)
    assert float(shown["tunewright_train_peak_memory_bytes"]) == 2**30
