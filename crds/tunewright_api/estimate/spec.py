"""From the parts of a FineTuneJob's spec to the settings that the arithmetic reads."""

from __future__ import annotations

from typing import Any

from tunewright_api.distributed import DeepSpeed, Distributed, Offload, Sharding
from tunewright_api.estimate.settings import Settings, Shard, Train
from tunewright_api.hyperparameters import Hyperparameters, Precision
from tunewright_api.method import Method


def read_settings(
    method: Method, hyperparameters: Hyperparameters, distributed: Distributed | None, *, processes: int, gpu: bool
) -> Settings:
    """The settings of a run.

    Args:
        method: spec.method.
        hyperparameters: spec.hyperparameters.
        distributed: spec.distributed.
        processes: Of the whole run: pods x processes per pod.
        gpu: Whether each process has a GPU.
    """
    pipeline = distributed.pipeline.stages if distributed and distributed.pipeline else 1
    given: dict[str, Any] = {
        "half": hyperparameters.precision is not Precision.FP32,
        "micro_batch": hyperparameters.micro_batch_size,
        "sequence": hyperparameters.sequence_length,
        "padded": hyperparameters.micro_batch_size > 1,
        "accumulation": hyperparameters.gradient_accumulation_steps,
        "checkpointing": hyperparameters.gradient_checkpointing,
        "processes": max(processes // pipeline, 1),
        "pipeline": pipeline,
        "gpu": gpu,
    }
    return Settings(**given, **_method(method), **_sharing(distributed))


def _method(method: Method) -> dict[str, Any]:
    if method.lora:
        targets = frozenset(method.lora.target_modules or ())
        return {"train": Train.LORA, "rank": method.lora.rank, "targets": targets}
    return {"train": Train.FULL}


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
    }
