"""spec.distributed -> DeepSpeed's configuration. Pure."""

from typing import Any

from tunewright_api.hyperparameters import Precision
from tunewright_api.trainer_config import TrainerConfig

# Bytes per all-reduce bucket. DeepSpeed's default of 5e8 elements would take 2 GB of a CPU pod's memory.
_BUCKET_ELEMENTS = {"cpu": 50_000_000, "cuda": 500_000_000}


def deepspeed_config(config: TrainerConfig, device: str) -> dict[str, Any] | None:
    """DeepSpeed's JSON for this run; None without spec.distributed.

    Args:
        config: The run.
        device: cpu or cuda.

    Optimizer and scheduler are torch's own, made by transformers' Trainer: so that one process and many compute the
    same, and nothing has to be compiled at start.
    """
    if config.distributed is None:
        return None
    hyperparameters = config.hyperparameters
    return {
        "train_micro_batch_size_per_gpu": hyperparameters.micro_batch_size,
        "gradient_accumulation_steps": hyperparameters.gradient_accumulation_steps,
        "gradient_clipping": hyperparameters.max_grad_norm,
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": hyperparameters.precision is Precision.BF16},
        "zero_optimization": _zero(config.distributed.deepspeed.zero_stage, device),
    }


def _zero(stage: int, device: str) -> dict[str, Any]:
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
    return zero
