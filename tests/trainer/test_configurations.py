"""What the libraries get: whole dictionaries, written out."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer.support import Job
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.deepspeed_config import deepspeed_config
from tunewright_trainer.precision import autocast_dtype, weights_dtype

COMMON = {
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "steps_per_print": 2**31,
    "zero_allow_untested_optimizer": True,
    "bf16": {"enabled": False},
    "fp16": {"enabled": False},
}
SHARING = ("ddp", "fsdp", "pipeline")
STAGES: list[tuple[int, str, dict[str, Any]]] = [
    (0, "cpu", {"stage": 0}),
    (
        1,
        "cpu",
        {
            "stage": 1,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
    ),
    (
        2,
        "cuda",
        {
            "stage": 2,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 500_000_000,
            "allgather_bucket_size": 500_000_000,
        },
    ),
    (
        3,
        "cuda",
        {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 500_000_000,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": False,
        },
    ),
]


def parse(job: Job) -> TrainerConfig:
    return TrainerConfig.model_validate(job.config)


@pytest.mark.parametrize(("stage", "device", "zero"), STAGES)
def test_deepspeed(job: Callable[..., Job], stage: int, device: str, zero: dict[str, Any]) -> None:
    config = parse(job(distributed={"deepspeed": {"zeroStage": stage}}))
    assert deepspeed_config(config, device) == {**COMMON, "zero_optimization": zero}


@pytest.mark.parametrize(
    "distributed", [None, {"ddp": {}}, {"fsdp": {}}, {"pipeline": {"stages": 2}}], ids=["one process", *SHARING]
)
def test_no_deepspeed(job: Callable[..., Job], distributed: dict[str, Any] | None) -> None:
    assert deepspeed_config(parse(job(distributed=distributed)), "cpu") is None


def test_deepspeed_that_offloads_to_the_cpu(job: Callable[..., Job]) -> None:
    offload = {"zeroStage": 2, "offloadOptimizer": "CPU"}
    assert deepspeed_config(parse(job(distributed={"deepspeed": offload})), "cuda") == {
        **COMMON,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {**STAGES[2][2], "offload_optimizer": {"device": "cpu", "pin_memory": True}},
    }


def test_deepspeed_that_offloads_to_nvme(job: Callable[..., Job]) -> None:
    offload = {
        "zeroStage": 3,
        "offloadOptimizer": "NVMe",
        "offloadParameters": "NVMe",
        "nvme": {"size": "800Gi", "storageClassName": "local-nvme"},
    }
    run = job(distributed={"deepspeed": offload}, directories={"nvme": "/mnt/nvme"})
    assert deepspeed_config(parse(run), "cuda") == {
        **COMMON,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            **STAGES[3][2],
            "sub_group_size": 100_000_000,
            "offload_optimizer": {
                "device": "nvme",
                "pin_memory": True,
                "nvme_path": "/mnt/nvme",
                "buffer_count": 12,
                "pipeline_read": True,
                "pipeline_write": True,
            },
            "offload_param": {
                "device": "nvme",
                "pin_memory": True,
                "nvme_path": "/mnt/nvme",
                "buffer_count": 5,
                "buffer_size": 200_000_000,
            },
        },
        "aio": {
            "block_size": 1_048_576,
            "queue_depth": 32,
            "intra_op_parallelism": 1,
            "single_submit": False,
            "overlap_events": True,
        },
    }


@pytest.mark.parametrize(
    ("overrides", "want"),
    [
        pytest.param({"method": {"full": {}}}, ("float32", "bfloat16"), id="fp32 master weights of full training"),
        pytest.param({}, ("bfloat16", "bfloat16"), id="a frozen base needs no master weights"),
        pytest.param(
            {"method": {"full": {}}, "distributed": {"deepspeed": {"zeroStage": 3}}},
            ("bfloat16", None),
            id="DeepSpeed keeps the master weights",
        ),
    ],
)
def test_weights_and_computation_in_bf16(
    job: Callable[..., Job], overrides: dict[str, Any], want: tuple[str, str | None]
) -> None:
    made = job(hyperparameters={"precision": "BF16"}, **overrides)
    assert (weights_dtype(parse(made)), autocast_dtype(parse(made))) == want
    made.config["hyperparameters"]["precision"] = "FP32"
    assert (weights_dtype(parse(made)), autocast_dtype(parse(made))) == ("float32", None)
