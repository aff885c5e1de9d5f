"""Memory per device of a training run, as a sum of parts. Pure arithmetic: no torch.

Model states follow the ZeRO paper (Rajbhandari et al. 2020, arXiv:1910.02054, section 3 and figure 1): with K bytes of
optimizer state per parameter, Psi parameters take (2 + 2 + K) Psi bytes in mixed precision, and the stages divide K,
then the gradients, then the weights by the number of processes. QLoRA's bits per weight follow Dettmers et al. 2023
(arXiv:2305.14314, section 3), 8-bit optimizer states Dettmers et al. 2022 (arXiv:2110.02861), the micro batches under
way in a pipeline Narayanan et al. 2021 (arXiv:2104.04473, section 2.2). `activations` has the rest.

A step has two peaks, and the greater one counts: when the backward pass begins (all activations, no gradients yet) and
when it ends and the optimizer updates (all gradients, no activations). Between them both change linearly with the
layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from tunewright_api.estimate.activations import layer_bytes, loss_bytes, residual_width, width
from tunewright_api.estimate.settings import Settings, Shard, States, Train
from tunewright_api.estimate.shape import ModelShape

CONTEXT_BYTES = 800 * 2**20
"""What CUDA, cuBLAS and NCCL take of a GPU before the first tensor: 0.5 to 1 GiB with PyTorch on A100 and H100."""

FRAGMENTATION = 0.1
"""Share of the activations that PyTorch's caching allocator holds in blocks that do not fit what is asked for."""

_BUCKET = {True: 500_000_000, False: 50_000_000}
"""Elements of DeepSpeed's reduce bucket on GPUs and CPUs, as the trainer sets it."""

_SUB_GROUP = 1_000_000_000
"""Parameters that ZeRO-3 updates at a time: DeepSpeed's default of sub_group_size."""

_BLOCK = 64
_SECOND_BLOCK = 256
_STATE_BLOCK = 256


class Moment(StrEnum):
    """When most memory is needed."""

    BACKWARD = "Backward"
    UPDATE = "Update"


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the moment when most are needed.

    Attributes:
        moment: Begin of the backward pass, or the optimizer's update.
        weights: Parameters, trained or not, with copies cast or gathered for computing.
        gradients: Gradients of the trained parameters, as far as they are there at that moment.
        optimizer: Moments and master copies.
        activations: What the forward pass keeps for the backward pass, logits included.
        buffers: Communication, and working space of the update.
        framework: CUDA's context and what the allocator cannot use; 0 on a CPU.
        host: Bytes in the host's memory instead, per process: what is offloaded. Not part of the total.
    """

    moment: Moment
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    framework: int
    host: int = 0

    @property
    def total(self) -> int:
        """All bytes on the device."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """The parts by name; they add up to the total."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "buffers": self.buffers,
            "framework": self.framework,
        }


def compute_memory(shape: ModelShape, settings: Settings) -> Memory:
    """Memory of the device that needs most: the first or the last stage of a pipeline, else any."""
    stages = min(settings.pipeline, shape.layers)
    layers = -(-shape.layers // stages)
    if stages == 1:
        return _stage(shape, settings, layers, embeddings=1 if shape.tied else 2, in_flight=1, head=True)
    in_flight = min(stages, settings.accumulation)
    first = _stage(shape, settings, layers, embeddings=1, in_flight=in_flight, head=False)
    last = _stage(shape, settings, layers, embeddings=1, in_flight=1, head=True)
    return max(first, last, key=lambda memory: memory.total)


def trainable_parameters(shape: ModelShape, settings: Settings) -> int:
    """Numbers that the optimizer changes."""
    trained, _ = _trained(shape, settings, shape.layers, 1 if shape.tied else 2)
    return trained


def _stage(
    shape: ModelShape, settings: Settings, layers: int, *, embeddings: int, in_flight: int, head: bool
) -> Memory:
    all_parameters = layers * shape.layer_parameters + embeddings * shape.embedding_parameters + shape.hidden
    trained, early = _trained(shape, settings, layers, embeddings)
    # A matrix that is embedding and head gets two gradients, which are added up at the end into a third.
    twice = (3 if settings.accumulation > 1 else 2) * early if shape.tied else 0
    added = 0 if settings.train is Train.FULL else trained
    shard = settings.shard
    stored = _stored_bytes(shape, settings, layers, embeddings) + added * _trained_width(settings)
    gradient_bytes = trained * _gradient_width(settings)
    states = _state_bytes(settings, trained)
    host = 0
    share = -(-stored // settings.processes) if shard.weights else stored
    if settings.offload_parameters and shard.weights:
        host, share = share, 0
    if shard.gradients:
        gradient_bytes = -(-gradient_bytes // settings.processes)
    whole_states = states
    if shard.optimizer:
        states = -(-states // settings.processes)
    if settings.offload_optimizer and shard.optimizer:
        host, states = host + states, 0
        if shard.gradients:
            host, gradient_bytes = host + gradient_bytes, 0
    # FSDP computes with copies cast from fp32 shards.
    elsewhere = all_parameters * width(settings) if shard.fsdp else stored - share
    weights = share + int(min(elsewhere, _gathered_bytes(shape, settings)))

    tokens = settings.micro_batch * (settings.sequence + _extra_tokens(settings))
    one_layer = tokens * layer_bytes(shape, settings)
    if settings.checkpointing:
        kept = in_flight * layers * tokens * residual_width(settings) * shape.hidden
    else:
        kept = in_flight * layers * one_layer
    around_loss = loss_bytes(shape, settings, tokens) if head else 0
    # A layer's own gradients of activations: the widest ones are those of the feed-forward.
    working = tokens * width(settings) * 3 * shape.intermediate + (one_layer if settings.checkpointing else 0)
    if settings.train is Train.QLORA:  # one matrix at a time is restored
        working += width(settings) * max(inputs * outputs for inputs, outputs in shape.linears.values())
    activations = kept + max(around_loss, working, around_loss // 2 + min(early, gradient_bytes))

    # The head's gradient comes when the logits are gone, and before any other.
    accumulated = gradient_bytes if settings.accumulation > 1 else 0
    # Buckets are counted at most as large as what sharing saves: for a model so small, nobody would make them larger.
    bucket = min(_bucket_bytes(settings, trained), whole_states - states)
    casts = _cast_bytes(shape, settings, layers, head=head, trained=added)
    backward = _memory(
        settings,
        Moment.BACKWARD,
        weights=weights + casts,
        gradients=accumulated,
        optimizer=states,
        activations=activations,
        buffers=bucket,
        host=host,
    )
    # The last gradients come while one layer is left; then the update has the memory to itself.
    one_layer_left = working + (0 if settings.checkpointing else one_layer)
    converting = _update_bytes(settings, trained)
    briefly = max(one_layer_left, twice, converting)
    update = _memory(
        settings,
        Moment.UPDATE,
        weights=weights,
        gradients=gradient_bytes + (twice if briefly == twice else 0),
        optimizer=states,
        activations=one_layer_left if twice < briefly == one_layer_left else 0,
        buffers=bucket + (converting if max(twice, one_layer_left) < briefly else 0),
        host=host,
    )
    return max(backward, update, key=lambda memory: memory.total)


def _memory(
    settings: Settings,
    moment: Moment,
    *,
    weights: int,
    gradients: int,
    optimizer: int,
    activations: int,
    buffers: int,
    host: int,
) -> Memory:
    memory = Memory(moment, weights, gradients, optimizer, activations, buffers, framework=0, host=host)
    if not settings.gpu:
        return memory
    return replace(memory, framework=CONTEXT_BYTES + int(FRAGMENTATION * activations))


def _trained(shape: ModelShape, settings: Settings, layers: int, embeddings: int) -> tuple[int, int]:
    """Trained numbers of a stage, and the bytes of the gradient that the backward pass makes first: the head's."""
    if settings.train is Train.FULL:
        matrix = shape.embedding_parameters
        everything = layers * shape.layer_parameters + embeddings * matrix + shape.hidden
        frozen = _frozen(shape, settings.freeze)
        head_trains = ("model.embed_tokens.weight" if shape.tied else "lm_head.weight") not in frozen
        share = 1 - sum(frozen.values()) / shape.parameters
        return int(everything * share), matrix * _gradient_width(settings) if head_trains else 0
    if settings.low_rank:
        wanted = settings.targets or frozenset(shape.linears)
        per_layer = sum(
            settings.rank * (inputs + outputs) + (outputs if settings.dora else 0)
            for name, (inputs, outputs) in shape.linears.items()
            if name in wanted
        )
        return layers * per_layer, 0
    if settings.train is Train.PREFIX:
        return _prefix_parameters(shape, settings, layers), 0
    changed = min(settings.adapter_layers or layers, layers)
    return changed * (settings.virtual_tokens * shape.hidden + 1), 0


def _frozen(shape: ModelShape, patterns: tuple[str, ...]) -> dict[str, int]:
    """Parameters that a pattern names by their own name or by that of a module above them, with their sizes."""
    if not patterns:
        return {}
    return {name: size for name, size in shape.names.items() if _matches(name.split("."), patterns)}


def _matches(parts: list[str], patterns: tuple[str, ...]) -> bool:
    above = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in above for pattern in patterns)


def _prefix_parameters(shape: ModelShape, settings: Settings, layers: int) -> int:
    """A key and a value per position and layer, or an embedding of keys' width and two linear layers that make them."""
    pairs = layers * 2 * shape.key
    if not settings.projection:
        return settings.virtual_tokens * pairs
    hidden = settings.projection
    return settings.virtual_tokens * shape.key + (shape.key + 1) * hidden + (hidden + 1) * pairs


def _extra_tokens(settings: Settings) -> int:
    """Positions that a trained prefix adds to the attention of each record; counted as whole ones."""
    return settings.virtual_tokens if settings.train is Train.PREFIX else 0


def _stored_bytes(shape: ModelShape, settings: Settings, layers: int, embeddings: int) -> int:
    """The model's own weights."""
    matrices = layers * shape.linear_parameters
    rest = layers * (shape.layer_parameters - shape.linear_parameters) + shape.hidden
    rest += embeddings * shape.embedding_parameters
    if settings.train is Train.QLORA:
        constants = 1 / _BLOCK + 4 / (_BLOCK * _SECOND_BLOCK) if settings.double_quantization else 4 / _BLOCK
        return int(matrices * (0.5 + constants)) + rest * width(settings)
    if settings.train is Train.FULL and not settings.shard.deepspeed:
        return 4 * (matrices + rest)
    return width(settings) * (matrices + rest)


def _trained_width(settings: Settings) -> int:
    """Bytes of a trained number: DeepSpeed holds it in 16 bits and keeps a master copy."""
    return width(settings) if settings.shard.deepspeed else 4


def _gradient_width(settings: Settings) -> int:
    """Bytes of a gradient. DeepSpeed without sharing adds 16-bit ones up in fp32."""
    if settings.shard is Shard.ZERO_0 and settings.half:
        return 2 + 4
    return _trained_width(settings)


def _state_bytes(settings: Settings, trained: int) -> int:
    """Two moments, and DeepSpeed's master copy where weights have 16 bits."""
    master = 4 * trained if settings.half and settings.shard.deepspeed else 0
    if settings.states is States.ADAMW:
        return master + 8 * trained
    return master + 2 * (trained + -(-4 * trained // _STATE_BLOCK))


def _gathered_bytes(shape: ModelShape, settings: Settings) -> float:
    """Weights that are whole for a while although they are shared, as far as they are elsewhere.

    ZeRO-3 has the layer that computes and the next one, or the head; FSDP2 the embedding and the head besides.
    """
    if not settings.shard.weights:
        return 0
    if settings.shard is Shard.FSDP_GRADIENTS:
        return math.inf
    layers, matrix = 2 * shape.layer_parameters, shape.embedding_parameters
    group = layers + (1 if shape.tied else 2) * matrix if settings.shard.fsdp else max(layers, matrix)
    return width(settings) * group


def _cast_bytes(shape: ModelShape, settings: Settings, layers: int, *, head: bool, trained: int) -> int:
    """16-bit copies of fp32 weights that autocast makes and the backward pass needs."""
    if not settings.autocast or settings.shard.fsdp:
        return 0
    if settings.train is not Train.FULL:
        return 2 * trained
    return 2 * (layers * shape.linear_parameters + (shape.embedding_parameters if head else 0))


def _bucket_bytes(settings: Settings, trained: int) -> int:
    """DeepSpeed's reduce buckets: up to ZeRO-2 two on a GPU, where reducing and computing overlap."""
    if not settings.shard.deepspeed or not settings.shard.optimizer:
        return 0
    twice = settings.gpu and settings.shard is not Shard.ZERO_3
    return min(_BUCKET[settings.gpu], trained) * width(settings) * (2 if twice else 1)


def _update_bytes(settings: Settings, trained: int) -> int:
    """DeepSpeed converts its share of 16-bit gradients to fp32 for the update; ZeRO-3 a group at a time."""
    if not settings.half or not settings.shard.deepspeed or not settings.shard.optimizer or settings.offload_optimizer:
        return 0
    share = -(-4 * trained // settings.processes)
    return min(share, 4 * _SUB_GROUP) if settings.shard is Shard.ZERO_3 else share
