"""spec.distributed.deepspeed -> DeepSpeed's configuration. Pure."""

from typing import Any

from tunewright_api.distributed import DeepSpeed, Offload
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.precision import half

# Bytes per all-reduce bucket. DeepSpeed's default of 5e8 elements would take 2 GB of a CPU pod's memory.
_BUCKET_ELEMENTS = {"cpu": 50_000_000, "cuda": 500_000_000}

# Weights of a sub-group, which is read from a disk, updated and written at a time. Twelve buffers of this size, in
# fp32, are what a process holds of the optimizer's states in memory.
_SUB_GROUP_ELEMENTS = {"cpu": 10_000_000, "cuda": 100_000_000}

# Of a process's share of one weight: that of a vocabulary of 128k and 8192 dimensions among 8 processes is 131 million.
_LARGEST_ELEMENTS = {"cpu": 30_000_000, "cuda": 200_000_000}

_AIO = {
    "block_size": 1024 * 1024,
    "queue_depth": 32,
    "intra_op_parallelism": 1,
    "single_submit": False,
    "overlap_events": True,
}
"""Asynchronous reads and writes of DeepNVMe: requests of 1 MiB, 32 of them under way, sent and awaited in batches."""


def deepspeed_config(config: TrainerConfig, device: str) -> dict[str, Any] | None:
    """DeepSpeed's JSON for this run; None where spec.distributed asks for something else.

    Args:
        config: The run.
        device: cpu or cuda.

    Optimizer and schedule are the loop's own: so that one process and many compute the same, and nothing has to be
    compiled at start.
    """
    if config.distributed is None or config.distributed.deepspeed is None:
        return None
    deepspeed = config.distributed.deepspeed
    hyperparameters = config.hyperparameters
    result: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": hyperparameters.micro_batch_size,
        "gradient_accumulation_steps": hyperparameters.gradient_accumulation_steps,
        "gradient_clipping": hyperparameters.max_grad_norm,
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": half(config) == "bfloat16"},
        "fp16": {"enabled": half(config) == "float16"},
        "zero_optimization": _zero(deepspeed, device, config.directories.nvme),
    }
    if deepspeed.offload_optimizer is not Offload.NONE:
        # The loop makes the optimizer; DeepSpeed would insist on its own one, which is compiled at start.
        result["zero_force_ds_cpu_optimizer"] = False
    if deepspeed.offloads_to_nvme:
        result["aio"] = dict(_AIO)
    return result


def _zero(deepspeed: DeepSpeed, device: str, nvme: str) -> dict[str, Any]:
    stage = deepspeed.zero_stage
    bucket = _BUCKET_ELEMENTS[device]
    overlap = device == "cuda"  # CPU ops run in order; there is no second stream to overlap with
    zero: dict[str, Any] = {"stage": stage}
    if stage >= 1:
        zero |= {
            "overlap_comm": overlap,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
        }
    if stage in (1, 2):
        zero |= {"allgather_bucket_size": bucket}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": bucket // 10,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    if deepspeed.offload_optimizer is not Offload.NONE:
        zero["offload_optimizer"] = _offload(deepspeed.offload_optimizer, device, nvme)
        if deepspeed.offload_optimizer is Offload.NVME:
            # Adam's four tensors of a sub-group (weight, gradient, two moments), those of the next one, which are read
            # meanwhile, and those of the one before, which are written.
            zero["offload_optimizer"] |= {"buffer_count": 12, "pipeline_read": True, "pipeline_write": True}
            zero["sub_group_size"] = _SUB_GROUP_ELEMENTS[device]
    if deepspeed.offload_parameters is not Offload.NONE:
        zero["offload_param"] = _offload(deepspeed.offload_parameters, device, nvme)
        if deepspeed.offload_parameters is Offload.NVME:
            zero["offload_param"] |= {"buffer_count": 5, "buffer_size": _LARGEST_ELEMENTS[device]}
    return zero


def _offload(target: Offload, device: str, nvme: str) -> dict[str, Any]:
    # Page-locked memory is what a GPU copies from while it computes; without one there is nothing to lock for.
    place: dict[str, Any] = {"device": target.value.lower(), "pin_memory": device == "cuda"}
    return place | ({"nvme_path": nvme} if target is Offload.NVME else {})
