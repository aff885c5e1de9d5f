"""Strategies of several processes on the tiny model: equal to one process, resumed, gathered, and refused in time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.support import REPO, Job, free_port
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.objectives.objective import IGNORED, Batch
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.parallel.alignment import aligned, common_shape
from tunewright_trainer.parallel.division import PIPELINED, check_division, divide
from tunewright_trainer.parallel.gradients import buckets, clip, squared_norm
from tunewright_trainer.parallel.pipeline import _Flow
from tunewright_trainer.parallel.stages import StageModel
from tunewright_trainer.rules import violations

PIPELINE = {"pipeline": {"stages": 2}}


# --- processes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiny:
    """The tiny model, and where a run on it writes."""

    model: Path
    out: Path


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> Tiny:
    """A run of its own."""
    return Tiny(tiny_model, tmp_path)


def run(tiny: Tiny, processes: int = 1, **settings: Any) -> dict[str, Any]:
    """Run strategy_run.py on some processes; what rank 0 found."""
    model, out = tiny.model, tiny.out
    out.mkdir(exist_ok=True)
    script = [
        str(REPO / "tests" / "trainer" / "strategy_run.py"),
        json.dumps({"model": str(model), "out": str(out), **settings}),
    ]
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, *script],
            env={
                **os.environ,
                "PYTHONPATH": f"{REPO / 'crds'}:{REPO / 'trainer_image'}",
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate()[0].decode() for process in started]
    assert [process.returncode for process in started] == [0] * processes, outputs[0][-3000:]
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


Alone = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def alone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process computes with a method and an optimizer, and its directory."""

    @cache
    def one(method: str, optimizer: str) -> tuple[dict[str, Any], Path]:
        out = tmp_path_factory.mktemp("alone")
        return run(Tiny(tiny_model, out), method=json.loads(method), optimizer=optimizer), out

    return lambda method=None, optimizer="AdamW", **_: one(json.dumps(method), optimizer)


LORA = {"lora": {"rank": 4, "alpha": 4}}
PREFIX = {"prefixTuning": {"numVirtualTokens": 4}}
ADAPTER = {"adapter": {"adapterLen": 4}}
ZERO3 = {"deepspeed": {"zeroStage": 3}}
CASES = [
    pytest.param(2, PIPELINE, {}, id="two stages"),
    pytest.param(2, PIPELINE, {"method": LORA, "checkpointing": True}, id="two stages, LoRA, recomputed activations"),
    pytest.param(4, PIPELINE, {}, id="two stages in two copies"),
    pytest.param(2, {"fsdp": {}}, {"checkpointing": True}, id="FSDP2 with recomputed activations"),
    pytest.param(
        2,
        {"fsdp": {"sharding": "GradientsAndOptimizer", "cpuOffload": True}},
        {"method": LORA},
        id="FSDP2 that offloads, LoRA",
    ),
    pytest.param(2, {"fsdp": {}}, {"method": PREFIX}, id="FSDP2, prefix tuning"),
    pytest.param(2, {"fsdp": {}}, {"method": ADAPTER}, id="FSDP2, LLaMA-Adapter"),
    pytest.param(2, ZERO3, {"method": PREFIX}, id="ZeRO-3, prefix tuning"),
    pytest.param(2, ZERO3, {"method": ADAPTER}, id="ZeRO-3, LLaMA-Adapter"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("processes", "distributed", "settings"), CASES)
def test_the_same_as_in_one_process(
    processes: int, distributed: dict[str, Any], settings: dict[str, Any], alone: Alone, tiny: Tiny
) -> None:
    """Losses, norms before clipping, evaluation and the gathered weights; also after a resume at step 3 of 5."""
    want, directory = alone(**settings)
    got = run(tiny, processes, distributed=distributed, **settings)
    assert got["losses"] == pytest.approx(want["losses"], rel=1e-5)
    assert got["norms"] == pytest.approx(want["norms"], rel=1e-4)
    assert got["evaluated"] == pytest.approx(want["evaluated"], rel=1e-5)
    trained = torch.load(tiny.out / "gathered.pt", weights_only=True)
    expected = torch.load(directory / "gathered.pt", weights_only=True)
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert got["resumed"] == pytest.approx(got["losses"][3:], rel=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_8_bit_optimizer_states_under_ddp_are_those_of_one_process(alone: Alone, tiny: Tiny) -> None:
    """A rank of 128 makes matrices of 4096 weights, the fewest that bitsandbytes quantises."""
    settings = {"method": {"lora": {"rank": 128, "alpha": 128}}, "optimizer": "AdamW8bit"}
    got = run(tiny, 2, distributed={"ddp": {}}, **settings)
    assert got["losses"] == pytest.approx(alone(**settings)[0]["losses"], rel=1e-4)
    assert got["resumed"] == pytest.approx(got["losses"][3:], rel=1e-6)
    state = torch.load(tiny.out / "state-0.pt", weights_only=True)["optimizer"]["state"]
    moments = [entry["__bnb_optimizer_quant_state__"]["state1"] for entry in state.values()]
    assert torch.uint8 in {tensor.dtype for tensor in moments}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pipeline_in_bf16_learns_about_the_same(alone: Alone, tiny: Tiny) -> None:
    got = run(tiny, 2, distributed=PIPELINE, bf16=True)
    assert got["losses"] == pytest.approx(alone()[0]["losses"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", [1, 3])
def test_fp16_weights_under_zero_learn_about_the_same(alone: Alone, tiny: Tiny, stage: int) -> None:
    got = run(tiny, 2, distributed={"deepspeed": {"zeroStage": stage}}, fp16=True)
    want, _ = alone()
    assert got["losses"] == pytest.approx(want["losses"], rel=1e-2)
    assert got["norms"] == pytest.approx(want["norms"], rel=2e-2)
    assert got["resumed"] == pytest.approx(got["losses"][3:], rel=1e-6)


def test_fp16_without_zero_is_refused_because_deepspeed_would_not_scale_the_loss(job: Callable[..., Job]) -> None:
    fp16 = job(distributed={"deepspeed": {"zeroStage": 0}}, hyperparameters={"precision": "FP16"})
    assert list(violations(TrainerConfig.model_validate(fp16.config))) == [
        "distributed.deepspeed.zeroStage 0 does not scale the loss, which FP16 needs: use distributed.ddp, or "
        "zeroStage 1"
    ]


class Builder:
    """Stands for DeepSpeed's builder of async_io."""

    def __init__(self, *, compatible: bool) -> None:
        self.compatible = compatible

    def is_compatible(self, *, verbose: bool) -> bool:
        return self.compatible


def test_offloading_to_a_disk_that_the_image_cannot_use_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from tunewright_trainer.parallel import async_io

    monkeypatch.setattr(async_io, "PACKAGE", "extensions_of_another_image")
    async_io.load_async_io(Builder(compatible=True))
    with pytest.raises(StageError, match=r"needs DeepSpeed's extension async_io.*or offload to CPU") as caught:
        async_io.load_async_io(Builder(compatible=False))
    assert caught.value.code is ExitCode.INVALID_CONFIG


# --- stages -------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def small(model_type: str, **settings: Any) -> Any:
    """A random model of an architecture, the same at each call."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(SMALL | settings))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("tied", [False, True], ids=["a head of its own", "a tied head"])
@pytest.mark.parametrize("model_type", sorted(PIPELINED))
def test_stages_one_after_the_other_are_the_model(model_type: str, *, tied: bool) -> None:
    inputs = {
        "input_ids": torch.arange(3, 27).reshape(2, 12),
        "attention_mask": torch.tensor([[1] * 12, [1] * 9 + [0] * 3]),
    }
    whole = small(model_type, tie_word_embeddings=tied)
    want = whole(**inputs, use_cache=False).logits
    parts = [StageModel(small(model_type, tie_word_embeddings=tied), stage, 3) for stage in range(3)]
    hidden = parts[1].hidden(inputs, parts[0].hidden(inputs, None))
    got = parts[2].fed_with(hidden)(**inputs, use_cache=False).logits
    torch.testing.assert_close(got, want)
    assert {part.tied is not None for part in parts} == ({True, False} if tied else {False})
    names = {name for part in parts for name, _ in part.module.named_parameters()}
    assert names == {name for name, _ in whole.named_parameters()}


def test_an_architecture_that_computes_between_embedding_and_layers_is_refused() -> None:
    with pytest.raises(StageError, match="cannot divide a model of type gemma, only llama") as caught:
        StageModel(small("gemma", head_dim=8), 0, 2)
    assert caught.value.code is ExitCode.INVALID_CONFIG


@given(st.integers(1, 200), st.integers(1, 64))
def test_every_layer_is_in_one_stage_and_stages_are_about_equal(layers: int, stages: int) -> None:
    if stages > layers:
        with pytest.raises(StageError, match=f"use {layers} stages or fewer"):
            divide(layers, stages)
        return
    parts = divide(layers, stages)
    assert [layer for part in parts for layer in part] == list(range(layers))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"model_type": "mamba", "num_hidden_layers": 8}, "cannot divide a model of type mamba"),
        ({"model_type": "llama", "num_hidden_layers": 1}, "use 1 stages or fewer"),
    ],
    ids=["an unknown architecture", "too few layers"],
)
def test_prepare_refuses_what_training_could_not_divide(
    described: dict[str, Any], message: str, job: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(described))
    check_division(TrainerConfig.model_validate(job().config), tmp_path)
    config = TrainerConfig.model_validate(job(distributed=PIPELINE).config)
    with pytest.raises(StageError, match=message) as caught:
        check_division(config, tmp_path)
    assert caught.value.code is ExitCode.INVALID_CONFIG


# --- micro batches and gradients ----------------------------------------------------------------


def batch(length: int, **inputs: torch.Tensor) -> Batch:
    ids = torch.ones(1, length, dtype=torch.long)
    return Batch(
        inputs={"input_ids": ids, "attention_mask": ids, **inputs},
        labels=ids,
        units=length - 1,
        tokens=length,
        samples=1,
    )


def together(micro_batches: list[Batch]) -> list[Batch]:
    shape = common_shape(micro_batches)
    return [aligned(one, shape) for one in micro_batches]


def test_micro_batches_of_a_step_get_one_length() -> None:
    short, long = together([batch(2), batch(4)])
    assert short.inputs["input_ids"].tolist() == [[1, 1, 0, 0]]
    assert short.inputs["attention_mask"].tolist() == [[1, 1, 0, 0]]
    assert short.labels.tolist() == [[1, 1, IGNORED, IGNORED]]
    assert (short.units, short.tokens) == (1, 2)
    assert long.labels.tolist() == [[1, 1, 1, 1]]


def test_the_watchdog_sees_each_micro_batch_of_a_pipeline_when_its_turn_comes() -> None:
    taken: list[int] = []

    class Followed(list[Batch]):
        def __getitem__(self, index: Any) -> Any:
            taken.append(index)
            return super().__getitem__(index)

    part = StageModel(small("llama"), 0, 2)
    flow = _Flow(part, Followed([batch(2), batch(4)]), Supervised(), nullcontext, 1.0)
    for index in range(2):
        assert flow(index=torch.tensor(index)).shape == (1, 4, SMALL["hidden_size"])
        assert taken[-1] == index


def test_packed_rows_are_filled_up_with_rows_that_nothing_counts() -> None:
    few = Batch(
        inputs={"input_ids": torch.tensor([[5, 6, 7]]), "position_ids": torch.tensor([[0, 1, 0]])},
        labels=torch.tensor([[IGNORED, 6, IGNORED]]),
        units=1,
        tokens=3,
        samples=2,
    )
    ids = torch.ones(2, 4, dtype=torch.long)
    many = Batch(inputs={"input_ids": ids, "position_ids": ids}, labels=ids, units=6, tokens=8, samples=2)
    grown, same = together([few, many])
    assert grown.inputs["input_ids"].tolist() == [[5, 6, 7, 0], [0, 0, 0, 0]]
    assert grown.inputs["position_ids"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert grown.labels.tolist() == [[IGNORED, 6, IGNORED, IGNORED], [IGNORED] * 4]
    assert grown.units == 1
    assert same.labels.tolist() == ids.tolist()


def test_what_is_added_to_a_flat_row_is_a_sequence_of_its_own() -> None:
    ends = torch.tensor([0, 2, 3], dtype=torch.int32)
    flat = batch(3, cu_seq_lens_q=ends, cu_seq_lens_k=ends)
    longest = {"max_length_q": 2, "max_length_k": 2}
    grown, _ = together([replace(flat, inputs=flat.inputs | longest), batch(7)])
    assert grown.inputs["cu_seq_lens_q"].tolist() == grown.inputs["cu_seq_lens_k"].tolist() == [0, 2, 3, 7]
    assert (grown.inputs["max_length_q"], grown.inputs["max_length_k"]) == (4, 4)
    assert grown.inputs["cu_seq_lens_q"].dtype == torch.int32


def test_an_input_that_cannot_be_lengthened_is_named() -> None:
    with pytest.raises(StageError, match="cannot lengthen the model's input pixel_values"):
        common_shape([batch(2, pixel_values=torch.ones(1, 3))])


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 20))
def test_buckets_keep_the_order_and_their_size(sizes: list[int], limit: int) -> None:
    tensors = [torch.zeros(size) for size in sizes]
    made = list(buckets(tensors, limit))
    assert [id(tensor) for bucket in made for tensor in bucket] == [id(tensor) for tensor in tensors]
    for bucket in made:
        assert len(bucket) == 1 or sum(tensor.numel() for tensor in bucket) <= limit


@pytest.mark.parametrize("limit", [0.5, 100.0], ids=["clipped", "left alone"])
def test_clipping_is_that_of_torch(limit: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(4))]
    for parameter in parameters:
        parameter.grad = torch.arange(1.0, 1.0 + parameter.numel()).view_as(parameter)
    gradients = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    norm = squared_norm(gradients, torch.device("cpu")).sqrt()
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(parameters, limit))
    clip(gradients, norm, limit)
    for gradient, parameter in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
