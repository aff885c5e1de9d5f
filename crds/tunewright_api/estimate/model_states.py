"""Weights, gradients and optimizer states of a device.

They follow the ZeRO paper (Rajbhandari et al. 2020, arXiv:1910.02054, section 3 and figure 1): with K bytes of
optimizer state per parameter, Psi parameters take (2 + 2 + K) Psi bytes in mixed precision, and the stages divide K,
then the gradients, then the weights by the number of processes. QLoRA's bits per weight follow Dettmers et al. 2023
(arXiv:2305.14314, section 3), 8-bit optimizer states Dettmers et al. 2022 (arXiv:2110.02861).
"""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tunewright_api.estimate.settings import Settings, Shard, States, Train, width
from tunewright_api.estimate.shape import ModelShape

_BUCKET = {True: 500_000_000, False: 50_000_000}
"""Elements of DeepSpeed's reduce bucket on GPUs and CPUs, as the trainer sets it."""

_SUB_GROUP = 1_000_000_000
"""Parameters that ZeRO-3 updates at a time: DeepSpeed's default of sub_group_size."""

_DISK_SUB_GROUP = {True: 100_000_000, False: 10_000_000}
"""Elements of sub_group_size where optimizer states are on a disk, on GPUs and CPUs, as the trainer sets it."""

_DISK_BUFFERS = 12
"""fp32 buffers of a sub-group's size that a process holds of states on a disk, as the trainer sets buffer_count."""

_DISK_STATES, _DISK_COPY = 16, 12
"""Bytes on the disk per trained weight: fp32 weight, gradient and two moments; and the copy that a checkpoint makes of
all but the gradient. Measured."""

_BLOCK = 64
_SECOND_BLOCK = 256
_STATE_BLOCK = 256


@dataclass(frozen=True)
class Part:
    """What of the model a device computes: all of it, or a stage of a pipeline.

    Attributes:
        layers: Decoder layers.
        embeddings: Matrices of the size of the embedding: it, the head.
        in_flight: Micro batches whose activations are kept at once.
        head: Whether the loss is computed here.
    """

    layers: int
    embeddings: int
    in_flight: int
    head: bool


@dataclass(frozen=True)
class ModelStates:
    """Bytes on the device, after sharing and offloading.

    Attributes:
        weights: Stored and gathered ones.
        casts: 16-bit copies while the backward pass needs them.
        gradients: All of them, at the end of a step.
        head_gradient: Of the head, which comes first.
        tied_gradients: Of a matrix that is embedding and head: it gets two, which are added up into a third.
        optimizer: Moments and master copies.
        bucket: Communication.
        converting: Working space of the update.
        host: What is offloaded to the host's memory, and the buffers between it and a disk.
        disk: What is offloaded to a disk, with the copy that a checkpoint makes of it.
        checkpoint: Copy in the host's memory of what a checkpoint writes while training goes on.
    """

    weights: int
    casts: int
    gradients: int
    head_gradient: int
    tied_gradients: int
    optimizer: int
    bucket: int
    converting: int
    host: int
    disk: int
    checkpoint: int


def compute_states(shape: ModelShape, settings: Settings, part: Part) -> ModelStates:
    """What one device holds."""
    shard, trained = settings.shard, count_trained(shape, settings, part)
    added = 0 if settings.train is Train.FULL else trained
    stored = _stored_bytes(shape, settings, part) + added * _trained_width(settings)
    share = _share(stored, settings, shared=shard.weights)
    whole_states = _state_bytes(settings, trained, min(_embedding(shape, settings), trained))
    gradients = _share(trained * _gradient_width(settings), settings, shared=shard.gradients)
    states = _share(whole_states, settings, shared=shard.optimizer)
    checkpoint = _checkpoint_bytes(settings, trained, states)
    host = disk = 0
    if settings.offload_parameters and shard.weights:
        host, disk = (0, share) if settings.nvme_parameters else (share, 0)
        share = 0
    if settings.offload_optimizer and shard.optimizer:
        if settings.nvme_optimizer:
            disk += _share((_DISK_STATES + _DISK_COPY) * trained, settings, shared=True)
            host += _disk_buffer_bytes(shape, settings)
        else:
            host += states + (gradients if shard.gradients else 0)
        states, gradients = 0, 0 if shard.gradients else gradients
    # FSDP computes with copies cast from fp32 shards.
    elsewhere = _parameters(shape, part) * width(settings) if shard.fsdp else stored - share
    head_gradient = _head_gradient(shape, settings)
    return ModelStates(
        weights=share + int(min(elsewhere, _gathered_bytes(shape, settings))),
        casts=_cast_bytes(shape, settings, part, added),
        gradients=gradients,
        head_gradient=min(head_gradient, gradients),
        tied_gradients=(3 if settings.accumulation > 1 else 2) * head_gradient if shape.tied else 0,
        optimizer=states,
        # At most as large as what sharing saves: for a model so small, nobody would make the buckets larger.
        bucket=min(_bucket_bytes(settings, trained), whole_states - states),
        converting=_converting_bytes(settings, trained),
        host=host,
        disk=disk,
        checkpoint=checkpoint,
    )


def count_trained(shape: ModelShape, settings: Settings, part: Part) -> int:
    """Numbers that the optimizer changes."""
    if settings.train is Train.FULL:
        share = 1 - sum(_frozen(shape, settings.freeze).values()) / shape.parameters
        return int(_parameters(shape, part) * share)
    if settings.low_rank:
        wanted = settings.targets or frozenset(shape.linears)
        per_layer = sum(
            settings.rank * (inputs + outputs) + (outputs if settings.dora else 0)
            for name, (inputs, outputs) in shape.linears.items()
            if name in wanted
        )
        return part.layers * per_layer
    if settings.train is Train.PREFIX:
        return _prefix_parameters(shape, settings, part.layers)
    changed = min(settings.adapter_layers or part.layers, part.layers)
    return changed * (settings.virtual_tokens * shape.hidden + 1)


def _share(amount: int, settings: Settings, *, shared: bool) -> int:
    return -(-amount // settings.processes) if shared else amount


def _parameters(shape: ModelShape, part: Part) -> int:
    return part.layers * shape.layer_parameters + part.embeddings * shape.embedding_parameters + shape.hidden


def _head_gradient(shape: ModelShape, settings: Settings) -> int:
    if settings.train is not Train.FULL:
        return 0
    name = "model.embed_tokens.weight" if shape.tied else "lm_head.weight"
    frozen = name in _frozen(shape, settings.freeze)
    return 0 if frozen else shape.embedding_parameters * _gradient_width(settings)


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


def _stored_bytes(shape: ModelShape, settings: Settings, part: Part) -> int:
    """The model's own weights."""
    matrices = part.layers * shape.linear_parameters
    rest = _parameters(shape, part) - matrices
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


def _embedding(shape: ModelShape, settings: Settings) -> int:
    """Trained weights of the embedding, whose moments the 8-bit optimizers keep in fp32."""
    trains = settings.train is Train.FULL and "model.embed_tokens.weight" not in _frozen(shape, settings.freeze)
    return shape.embedding_parameters if trains else 0


def _state_bytes(settings: Settings, trained: int, embedding: int) -> int:
    """Two moments, and DeepSpeed's master copy where weights have 16 bits."""
    master = 4 * trained if settings.half and settings.shard.deepspeed else 0
    if settings.states is States.ADAMW:
        return master + 8 * trained
    quantised = trained - embedding
    return master + 8 * embedding + 2 * (quantised + -(-4 * quantised // _STATE_BLOCK))


def _checkpoint_bytes(settings: Settings, trained: int, states: int) -> int:
    """This process's share of trained weights and optimizer states; on a disk they are copied there instead.

    The trained weights of 16-bit DeepSpeed are its master copies, which are among the states.
    """
    if settings.nvme_optimizer:
        return 0
    masters = settings.half and settings.shard.deepspeed
    return states + (0 if masters else _share(4 * trained, settings, shared=settings.shard.optimizer))


def _disk_buffer_bytes(shape: ModelShape, settings: Settings) -> int:
    """Of a sub-group, or of this process's share of the largest tensor where that is larger."""
    largest = _share(_embedding(shape, settings), settings, shared=True)
    return 4 * _DISK_BUFFERS * max(_DISK_SUB_GROUP[settings.gpu], largest)


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


def _cast_bytes(shape: ModelShape, settings: Settings, part: Part, added: int) -> int:
    """16-bit copies of fp32 weights that autocast makes and the backward pass needs."""
    if not settings.autocast or settings.shard.fsdp:
        return 0
    if settings.train is not Train.FULL:
        return 2 * added
    return 2 * (part.layers * shape.linear_parameters + (shape.embedding_parameters if part.head else 0))


def _bucket_bytes(settings: Settings, trained: int) -> int:
    """DeepSpeed's reduce buckets: up to ZeRO-2 two on a GPU, where reducing and computing overlap."""
    if not settings.shard.deepspeed or not settings.shard.optimizer:
        return 0
    twice = settings.gpu and settings.shard is not Shard.ZERO_3
    return min(_BUCKET[settings.gpu], trained) * width(settings) * (2 if twice else 1)


def _converting_bytes(settings: Settings, trained: int) -> int:
    """DeepSpeed converts its share of 16-bit gradients to fp32 for the update; ZeRO-3 a group at a time."""
    if not settings.half or not settings.shard.deepspeed or not settings.shard.optimizer or settings.offload_optimizer:
        return 0
    share = -(-4 * trained // settings.processes)
    return min(share, 4 * _SUB_GROUP) if settings.shard is Shard.ZERO_3 else share
