"""From the parts of a FineTuneJob's spec to the settings that the arithmetic reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunewright_api.distributed import DeepSpeed, Distributed, Offload, Sharding
from tunewright_api.estimate.settings import Settings, Shard, States, Train
from tunewright_api.estimate.shape import ModelShape
from tunewright_api.hyperparameters import AttentionBackend, Hyperparameters, Precision
from tunewright_api.method import Method
from tunewright_api.objective import Objective, Supervised


def read_settings(
    method: Method,
    hyperparameters: Hyperparameters,
    distributed: Distributed | None,
    *,
    processes: int,
    gpu: bool,
    padded: bool = True,
    objective: Objective | None = None,
    teacher: ModelShape | None = None,
) -> Settings:
    """The settings of a run.

    Args:
        method: spec.method.
        hyperparameters: spec.hyperparameters.
        distributed: spec.distributed.
        processes: Of the whole run: pods x processes per pod.
        gpu: Whether each process has a GPU.
        padded: Whether rows of a micro batch differ in length.
        objective: spec.objective.
        teacher: The model that distillation imitates.
    """
    pipeline = distributed.pipeline.stages if distributed and distributed.pipeline else 1
    given: dict[str, Any] = {
        "half": hyperparameters.precision is not Precision.FP32,
        "states": States(hyperparameters.optimizer.value),
        "eager_attention": hyperparameters.attention_backend is AttentionBackend.EAGER,
        "micro_batch": hyperparameters.micro_batch_size,
        "sequence": hyperparameters.sequence_length,
        "accumulation": hyperparameters.gradient_accumulation_steps,
        "checkpointing": hyperparameters.gradient_checkpointing,
        "processes": max(processes // pipeline, 1),
        "pipeline": pipeline,
        "gpu": gpu,
    }
    settings = Settings(**given, **_method(method), **_sharing(distributed), **_objective(objective, teacher))
    return replace(settings, padded=padded and settings.rows > 1)


def _method(method: Method) -> dict[str, Any]:
    if low_rank := method.low_rank:
        targets = frozenset(low_rank.target_modules or ())
        given = {"train": Train.LORA, "rank": low_rank.rank, "targets": targets, "dora": low_rank.use_dora}
        if method.qlora:
            given |= {"train": Train.QLORA, "double_quantization": method.qlora.double_quantization}
        return given
    if prefix := method.prefix_tuning:
        tokens, hidden = prefix.num_virtual_tokens, prefix.projection_size or 0
        return {"train": Train.PREFIX, "virtual_tokens": tokens, "projection": hidden}
    if adapter := method.adapter:
        layers = adapter.adapter_layers or 0
        return {"train": Train.ADAPTER, "virtual_tokens": adapter.adapter_len, "adapter_layers": layers}
    return {"train": Train.FULL, "freeze": tuple((method.full.freeze if method.full else None) or ())}


def _objective(objective: Objective | None, teacher: ModelShape | None) -> dict[str, Any]:
    if objective is None or objective.dpo:
        return {"pairs": objective is not None}
    terms = objective.supervised or Supervised()
    return {
        "ewc": terms.ewc is not None,
        "contrastive": terms.contrastive is not None,
        "teacher": teacher if terms.distillation else None,
    }


def _sharing(distributed: Distributed | None) -> dict[str, Any]:
    if distributed is None:
        return {}
    if distributed.fsdp:
        whole = distributed.fsdp.sharding is Sharding.FULL
        offload = distributed.fsdp.cpu_offload
        shard = Shard.FSDP if whole else Shard.FSDP_GRADIENTS
        return {"shard": shard, "offload_optimizer": offload, "offload_parameters": offload}
    return _zero(distributed.deepspeed) if distributed.deepspeed else {}


def _zero(deepspeed: DeepSpeed) -> dict[str, Any]:
    return {
        "shard": Shard(f"zero-{deepspeed.zero_stage}"),
        "offload_optimizer": deepspeed.offload_optimizer is not Offload.NONE,
        "offload_parameters": deepspeed.offload_parameters is not Offload.NONE,
        "nvme_optimizer": deepspeed.offload_optimizer is Offload.NVME,
        "nvme_parameters": deepspeed.offload_parameters is Offload.NVME,
    }
