"""spec.hyperparameters -> transformers' TrainingArguments and peft's LoraConfig, as plain dictionaries. Pure."""

from typing import Any

from tunewright_api.hyperparameters import Precision, Scheduler
from tunewright_api.method import LoraMethod
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.plan import RunPlan

_SCHEDULERS = {
    Scheduler.COSINE: "cosine",
    Scheduler.LINEAR: "linear",
    Scheduler.CONSTANT: "constant_with_warmup",
}


def training_arguments(
    config: TrainerConfig, plan: RunPlan, device: str, output_dir: str, collective_timeout: int
) -> dict[str, Any]:
    """Keyword arguments of transformers.TrainingArguments, without `deepspeed`.

    The dataset is already in the order of the whole run (data.split.DataOrder), so the Trainer sees one long epoch.
    Logging happens at each optimizer step; checkpoints are asked for by the recipe.
    """
    h = config.hyperparameters
    return {
        "output_dir": output_dir,
        "max_steps": plan.total_steps,
        "per_device_train_batch_size": h.micro_batch_size,
        "gradient_accumulation_steps": h.gradient_accumulation_steps,
        "learning_rate": h.learning_rate,
        "lr_scheduler_type": _SCHEDULERS[h.scheduler],
        "warmup_steps": plan.warmup_steps,
        "weight_decay": h.weight_decay,
        "max_grad_norm": h.max_grad_norm,
        "optim": "adamw_torch_fused",
        "activation_checkpointing": h.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if h.gradient_checkpointing else None,
        "bf16": h.precision is Precision.BF16,
        "seed": h.seed,
        "use_cpu": device == "cpu",
        "ddp_backend": backend(device) if config.distributed else None,
        "ddp_timeout": collective_timeout,
        "average_tokens_across_devices": True,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": device == "cuda",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def backend(device: str) -> str:
    """torch.distributed's backend for a device."""
    return "gloo" if device == "cpu" else "nccl"


def lora_arguments(method: LoraMethod) -> dict[str, Any]:
    """Keyword arguments of peft.LoraConfig."""
    return {
        "task_type": "CAUSAL_LM",
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": list(method.target_modules) if method.target_modules else "all-linear",
        "bias": "none",
    }


def weights_dtype(config: TrainerConfig) -> str:
    """The dtype in which the model is loaded for training: a name in torch.

    FP32 is float32 throughout. With BF16, DeepSpeed keeps fp32 master copies of bf16 weights itself, and LoRA's
    frozen base needs no master copy; full training without DeepSpeed keeps fp32 weights and casts per operation.
    """
    bf16 = config.hyperparameters.precision is Precision.BF16
    return "bfloat16" if bf16 and (config.distributed or config.method.lora) else "float32"
