"""The memory estimate: known sums of the papers, and laws that hold for every model and every setting."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.distributed import Distributed
from tunewright_api.estimate import (
    ModelShape,
    Settings,
    Shard,
    States,
    Train,
    UnknownModelError,
    estimate_memory,
    read_settings,
    read_shape,
)
from tunewright_api.estimate.memory import Moment, compute_memory
from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.method import Method
from tunewright_api.objective import Objective

LLAMA_70B = ModelShape(80, 8192, 28672, 64, 8, 128, 128256, tied=False)
SMOLLM = ModelShape(30, 576, 1536, 9, 3, 64, 49152, tied=True)
GIB = 2**30

shapes = st.builds(
    lambda layers, heads, groups, width, vocabulary, tied: ModelShape(
        layers, heads * width, heads * width * 3, heads, heads // groups, width, vocabulary, tied
    ),
    layers=st.integers(2, 96),
    heads=st.sampled_from([4, 8, 32, 64]),
    groups=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([16, 64, 128]),
    vocabulary=st.integers(256, 256_000),
    tied=st.booleans(),
)
settings = st.builds(
    Settings,
    train=st.sampled_from(Train),
    rank=st.integers(1, 256),
    virtual_tokens=st.integers(0, 64),
    half=st.booleans(),
    states=st.sampled_from(States),
    micro_batch=st.integers(1, 32),
    sequence=st.integers(16, 16384),
    padded=st.booleans(),
    accumulation=st.integers(1, 8),
    checkpointing=st.booleans(),
    processes=st.integers(1, 64),
    shard=st.sampled_from(Shard),
    pipeline=st.sampled_from([1, 1, 2, 4]),
    offload_optimizer=st.booleans(),
    gpu=st.booleans(),
    pairs=st.booleans(),
    ewc=st.booleans(),
    contrastive=st.booleans(),
    teacher=st.none() | shapes,
)


def total(shape: ModelShape, given: Settings) -> int:
    return compute_memory(shape, given).total


@given(shapes, settings)
def test_the_parts_add_up_to_the_total_and_none_is_negative(shape: ModelShape, given: Settings) -> None:
    memory = compute_memory(shape, given)
    assert sum(memory.parts().values()) == memory.total
    assert min(*memory.parts().values(), memory.host) >= 0


@given(shapes, settings, st.sampled_from(["micro_batch", "sequence", "rank", "accumulation", "virtual_tokens"]))
def test_more_of_anything_never_needs_less(shape: ModelShape, given: Settings, what: str) -> None:
    more = replace(given, **{what: getattr(given, what) + 1})
    assert total(shape, more) >= total(shape, given)


@given(shapes, settings)
def test_no_zero_stage_needs_more_than_the_one_before(shape: ModelShape, given: Settings) -> None:
    stages = [replace(given, shard=shard) for shard in (Shard.ZERO_0, Shard.ZERO_1, Shard.ZERO_2, Shard.ZERO_3)]
    totals = [total(shape, stage) for stage in stages]
    assert totals == sorted(totals, reverse=True)


@given(shapes, settings)
def test_more_processes_share_without_needing_more_each(shape: ModelShape, given: Settings) -> None:
    # The working space of ZeRO-3 grows with what is elsewhere, up to its two layers.
    fewer = replace(given, shard=Shard.ZERO_2)
    assert total(shape, replace(fewer, processes=fewer.processes * 2)) <= total(shape, fewer)


@given(shapes, settings)
def test_checkpointing_never_needs_more(shape: ModelShape, given: Settings) -> None:
    given = replace(given, pipeline=1)  # a stage of one layer has nothing to compute again
    assert total(shape, replace(given, checkpointing=True)) <= total(shape, replace(given, checkpointing=False))


@given(shapes, settings)
def test_advice_saves_what_it_says_and_the_best_comes_first(shape: ModelShape, given: Settings) -> None:
    estimate = estimate_memory(shape, given)
    saved = [advice.saves for advice in estimate.advice]
    assert saved == sorted(saved, reverse=True)
    assert all(0 < amount < estimate.memory.total for amount in saved)


def test_parameters_are_those_of_the_published_models() -> None:
    assert (LLAMA_70B.parameters, SMOLLM.parameters) == (70_553_706_496, 134_515_008)


@pytest.mark.parametrize(
    ("shard", "bytes_per_parameter"),
    [
        pytest.param(Shard.ZERO_1, 2 + 2 + 12 / 64, id="zero-1 shares optimizer states: 31.4 GB of the paper's 7.5B"),
        pytest.param(Shard.ZERO_2, 2 + (2 + 12) / 64, id="zero-2 also gradients: 16.6 GB"),
        pytest.param(Shard.ZERO_3, (2 + 2 + 12) / 64, id="zero-3 also weights: 1.9 GB"),
    ],
)
def test_model_states_are_those_of_the_zero_paper(shard: Shard, bytes_per_parameter: float) -> None:
    shape = ModelShape(100, 2496, 9984, 39, 39, 64, 50304, tied=False)
    memory = compute_memory(shape, Settings(shard=shard, processes=64, sequence=16, accumulation=2))
    own = memory.weights + memory.gradients + memory.optimizer
    gathered = 2 * max(2 * shape.layer_parameters, shape.embedding_parameters) if shard is Shard.ZERO_3 else 0
    assert own - gathered == pytest.approx(bytes_per_parameter * shape.parameters, rel=0.01)


def test_a_full_llama_70b_on_16_gpus() -> None:
    given = Settings(shard=Shard.ZERO_3, processes=16, checkpointing=True, sequence=4096, accumulation=4)
    estimate = estimate_memory(LLAMA_70B, given)
    assert estimate.memory.moment is Moment.BACKWARD
    states = estimate.memory.gradients + estimate.memory.optimizer
    assert states == pytest.approx(14 * LLAMA_70B.parameters / 16, rel=0.01)
    assert estimate.fits(80 * GIB)
    assert not estimate.fits(40 * GIB)
    assert estimate.advice[1].setting == "distributed.deepspeed.offloadOptimizer: CPU"


def test_offloading_moves_bytes_to_the_host() -> None:
    given = Settings(shard=Shard.ZERO_2, processes=4, accumulation=2)
    on_device, offloaded = (compute_memory(SMOLLM, replace(given, offload_optimizer=there)) for there in (False, True))
    assert offloaded.host == on_device.optimizer + on_device.gradients
    assert (offloaded.optimizer, offloaded.gradients) == (0, 0)


def test_what_is_on_a_disk_is_not_in_memory() -> None:
    deepspeed = {"zeroStage": 3, "offloadOptimizer": "NVMe", "offloadParameters": "NVMe", "nvme": {"size": "1Gi"}}
    distributed = Distributed.model_validate({"deepspeed": deepspeed})
    given = read_settings(Method(full={}), Hyperparameters(), distributed, processes=4, gpu=False)
    memory = compute_memory(SMOLLM, given)
    assert memory.disk == pytest.approx((16 + 12 + 2) * SMOLLM.parameters / 4, abs=4)
    assert memory.host == 12 * 10_000_000 * 4  # the buffers of sub_group_size
    assert (memory.checkpoint, memory.optimizer, memory.gradients) == (0, 0, 0)


@pytest.mark.parametrize(
    ("given", "bytes_per_parameter"),
    [
        pytest.param(Settings(half=False), 12, id="weights and two moments, as measured: 1,520 MiB of SmolLM2"),
        pytest.param(Settings(shard=Shard.ZERO_2, processes=4), 12 / 4, id="a share of master copies and moments"),
        pytest.param(Settings(shard=Shard.FSDP, processes=4), 12 / 4, id="a share of fp32 weights and moments"),
    ],
)
def test_a_checkpoint_is_copied_into_the_host_memory(given: Settings, bytes_per_parameter: float) -> None:
    assert compute_memory(SMOLLM, given).checkpoint == pytest.approx(bytes_per_parameter * SMOLLM.parameters, abs=8)


def test_the_settings_follow_from_the_spec() -> None:
    method = Method.model_validate({"lora": {"rank": 8, "targetModules": ["q_proj", "v_proj"]}})
    hyperparameters = Hyperparameters(micro_batch_size=4, sequence_length=2048, gradient_checkpointing=True)
    distributed = Distributed.model_validate({"deepspeed": {"zeroStage": 3, "offloadOptimizer": "CPU"}})
    assert read_settings(method, hyperparameters, distributed, processes=16, gpu=True) == Settings(
        train=Train.LORA,
        rank=8,
        targets=frozenset({"q_proj", "v_proj"}),
        half=True,
        micro_batch=4,
        sequence=2048,
        padded=True,
        checkpointing=True,
        processes=16,
        shard=Shard.ZERO_3,
        offload_optimizer=True,
    )


@pytest.mark.parametrize(
    ("given", "held"),
    [
        pytest.param(Settings(), 0, id="supervised alone holds nothing"),
        pytest.param(Settings(ewc=True), 8 * SMOLLM.parameters, id="EWC: F and w* of every trained weight, in fp32"),
        pytest.param(
            Settings(train=Train.LORA, targets=frozenset({"q_proj"}), ewc=True),
            4 * 30 * 576 * 576,
            id="EWC with LoRA: F of the base weights that have an adapter",
        ),
        pytest.param(Settings(teacher=LLAMA_70B), 2 * LLAMA_70B.parameters, id="a teacher in the run's precision"),
        pytest.param(Settings(pairs=True, contrastive=True), 0, id="pairs and similarities are activations"),
    ],
)
def test_what_an_objective_holds(given: Settings, held: int) -> None:
    assert compute_memory(SMOLLM, given).objective == held


def test_a_pair_is_two_rows() -> None:
    given = Settings(micro_batch=3)
    assert compute_memory(SMOLLM, replace(given, pairs=True)) == compute_memory(SMOLLM, replace(given, micro_batch=6))


def test_ewc_is_not_advised_what_it_is_refused_with() -> None:
    advice = estimate_memory(SMOLLM, Settings(ewc=True, processes=4, shard=Shard.ZERO_1)).advice
    stages = [one.setting for one in advice if "zeroStage" in one.setting]
    assert stages == ["distributed.deepspeed.zeroStage: 2"]


@pytest.mark.parametrize(
    ("objective", "found"),
    [
        pytest.param({}, Settings(), id="nothing said"),
        pytest.param({"dpo": {}}, Settings(pairs=True, padded=True), id="dpo: a pair is padded to the longer answer"),
        pytest.param(
            {
                "supervised": {
                    "contrastive": {},
                    "distillation": {"teacher": {"uri": "pvc://a/teacher"}},
                    "ewc": {"reference": {"uri": "pvc://a/known.jsonl", "format": "Chat"}},
                }
            },
            Settings(ewc=True, contrastive=True, teacher=LLAMA_70B),
            id="all terms of supervised",
        ),
    ],
)
def test_the_objective_is_read(objective: dict[str, Any], found: Settings) -> None:
    given = read_settings(
        Method.model_validate({"full": {}}),
        Hyperparameters(micro_batch_size=1, sequence_length=1024, gradient_accumulation_steps=1),
        None,
        processes=1,
        gpu=True,
        objective=Objective.model_validate(objective),
        teacher=LLAMA_70B,
    )
    assert given == replace(found, checkpointing=given.checkpointing)


def test_a_pipeline_leaves_fewer_processes_to_share() -> None:
    distributed = Distributed.model_validate({"pipeline": {"stages": 4}})
    given = read_settings(Method.model_validate({"full": {}}), Hyperparameters(), distributed, processes=16, gpu=False)
    assert (given.pipeline, given.processes) == (4, 4)


def test_a_stage_of_a_pipeline_holds_its_share_of_the_layers() -> None:
    one, four = (compute_memory(LLAMA_70B, Settings(pipeline=stages, accumulation=4)).weights for stages in (1, 4))
    assert four < 0.3 * one


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"num_hidden_layers": 2}, "config.json has no hidden_size", id="a number is missing"),
        pytest.param(
            {"num_local_experts": 8, "hidden_size": 64},
            "it is a mixture of experts (num_local_experts: 8), which is not estimated",
            id="moe",
        ),
    ],
)
def test_a_model_that_cannot_be_estimated_says_why(config: dict[str, int], message: str) -> None:
    with pytest.raises(UnknownModelError) as raised:
        read_shape(config)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            {"moe_num_experts": 64},
            "a mixture of experts (moe_num_experts: 64), which is",
            id="experts by another name",
        ),
        pytest.param({"mamba_d_state": 16}, "other layers than attention (mamba_d_state), which are", id="a hybrid"),
        pytest.param(
            {"layer_types": ["full_attention", "conv"]}, "layers of conv (layer_types), which are", id="convolutions"
        ),
    ],
)
def test_layers_that_no_formula_holds_for_are_refused(given: dict[str, Any], message: str) -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 256}
    read_shape({**config, "layer_types": ["full_attention", "sliding_attention"], "num_experts_per_tok": 8})
    with pytest.raises(UnknownModelError) as raised:
        read_shape({**config, **given})
    assert str(raised.value).endswith(f"{message} not estimated")


def test_the_buckets_of_ddp_hold_all_gradients_when_the_backward_pass_begins() -> None:
    alone, two = (compute_memory(SMOLLM, Settings(half=False, processes=n, sequence=4096)) for n in (1, 2))
    assert (alone.moment, alone.gradients) == (Moment.BACKWARD, 0)
    assert (two.moment, two.gradients) == (Moment.BACKWARD, 4 * SMOLLM.parameters)


def test_names_of_older_families_are_read() -> None:
    text = '{"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}'
    assert read_shape(json.loads(text)) == ModelShape(12, 768, 3072, 12, 12, 64, 50257, tied=True, gated=False)
