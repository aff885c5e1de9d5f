"""Which settings would save memory, and how much: each is tried, one at a time, in the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewright_api.estimate.memory import compute_memory
from tunewright_api.estimate.settings import Settings, Shard, States, Train
from tunewright_api.estimate.shape import ModelShape


@dataclass(frozen=True)
class Advice:
    """One change of the spec.

    Attributes:
        setting: What to write, such as `hyperparameters.gradientCheckpointing: true`.
        saves: Bytes per device that it would save, alone.
    """

    setting: str
    saves: int


def advise(shape: ModelShape, settings: Settings) -> tuple[Advice, ...]:
    """Every change that would save something, the best first."""
    now = compute_memory(shape, settings).total
    changes = ((text, compute_memory(shape, changed).total) for text, changed in _changes(settings))
    found = (Advice(text, now - then) for text, then in changes if then < now)
    return tuple(sorted(found, key=lambda advice: -advice.saves))


def _changes(settings: Settings) -> Iterator[tuple[str, Settings]]:
    yield from _fewer_activations(settings)
    yield from _smaller_states(settings)
    yield from _more_sharing(settings)


def _fewer_activations(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if not settings.checkpointing and settings.train is not Train.PREFIX:
        yield "hyperparameters.gradientCheckpointing: true", replace(settings, checkpointing=True)
    if settings.micro_batch > 1:
        rows = settings.micro_batch // 2
        steps = -(-settings.accumulation * settings.micro_batch // rows)
        yield (
            f"hyperparameters.microBatchSize: {rows} with gradientAccumulationSteps: {steps}",
            replace(settings, micro_batch=rows, accumulation=steps),
        )
    if settings.sequence >= 32:
        tokens = settings.sequence // 2
        yield f"hyperparameters.sequenceLength: {tokens}", replace(settings, sequence=tokens)


def _smaller_states(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if not settings.half and settings.gpu:
        yield "hyperparameters.precision: BF16", replace(settings, half=True)
    whole = settings.shard is Shard.NOTHING and settings.pipeline == 1  # 8-bit moments are of whole tensors
    if settings.states is States.ADAMW and whole:
        yield "hyperparameters.optimizer: AdamW8bit", replace(settings, states=States.ADAMW_8BIT)
    if settings.train is Train.FULL:
        yield "method.lora: {}", replace(settings, train=Train.LORA, freeze=())
    if settings.train is Train.LORA and not settings.shard.weights and settings.pipeline == 1:
        yield "method.qlora: {} in place of lora", replace(settings, train=Train.QLORA)
    if settings.low_rank and settings.rank > 8:
        yield f"method.{settings.train.value}.rank: {settings.rank // 2}", replace(settings, rank=settings.rank // 2)


def _more_sharing(settings: Settings) -> Iterator[tuple[str, Settings]]:
    sharded = settings.shard.optimizer
    eight_bit = settings.states is not States.ADAMW
    if settings.processes > 1 and not eight_bit and settings.pipeline == 1 and not settings.shard.fsdp:
        for stage, shard in ((2, Shard.ZERO_2), (3, Shard.ZERO_3)):
            if shard.weights and settings.ewc:
                continue  # EWC needs whole weights
            if settings.shard.value < shard.value and settings.train is not Train.QLORA:
                yield f"distributed.deepspeed.zeroStage: {stage}", replace(settings, shard=shard)
    if settings.gpu and settings.shard.deepspeed and sharded and not settings.offload_optimizer:
        yield "distributed.deepspeed.offloadOptimizer: CPU", replace(settings, offload_optimizer=True)
    if settings.gpu and settings.shard is Shard.ZERO_3 and not settings.offload_parameters:
        yield "distributed.deepspeed.offloadParameters: CPU", replace(settings, offload_parameters=True)
    if settings.gpu and settings.shard.fsdp and not settings.offload_parameters:
        changed = replace(settings, offload_parameters=True, offload_optimizer=True)
        yield "distributed.fsdp.cpuOffload: true", changed
