"""Bytes that the forward pass keeps for the backward pass.

The counting follows Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1), who go through a layer and add up what
each operation saves. They count GPT's layer in fp16: s b h (34 + 5 a s / h) bytes. This is the same count for the
layers that transformers computes: RMSNorm in fp32, rotary embeddings, grouped-query attention that keeps no matrix of
scores (Dao et al. 2022, arXiv:2205.14135), a gated feed-forward, no dropout; and for what LoRA needs instead of the
weights' inputs.
"""

from dataclasses import dataclass

from tunewright_api.estimate.loss import loss_bytes
from tunewright_api.estimate.settings import Settings, Train, width
from tunewright_api.estimate.shape import ModelShape

# Matrices that read the same tensor.
_INPUTS = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "o_proj": "output",
    "gate_proj": "feed-forward",
    "up_proj": "feed-forward",
    "down_proj": "product",
}


@dataclass(frozen=True)
class Activations:
    """Bytes on a device.

    Attributes:
        kept: Of all layers when the backward pass begins.
        loss: Logits and what their gradient needs.
        working: For a moment, while one layer computes its gradients.
        last_layer: When one layer is left.
    """

    kept: int
    loss: int
    working: int
    last_layer: int


def compute_activations(
    shape: ModelShape, settings: Settings, layers: int, in_flight: int, *, head: bool
) -> Activations:
    """What a device keeps for `in_flight` micro batches in its layers; with the loss if it has the head."""
    tokens = settings.rows * (settings.sequence + _extra_tokens(settings))
    one_layer = tokens * layer_bytes(shape, settings)
    between_layers = tokens * residual_width(settings) * shape.hidden
    # The widest gradients of a layer's activations are those of the feed-forward.
    working = tokens * width(settings) * 3 * shape.intermediate
    if settings.train is Train.QLORA:  # one matrix at a time is restored
        working += width(settings) * max(inputs * outputs for inputs, outputs in shape.linears.values())
    return Activations(
        kept=in_flight * layers * (between_layers if settings.checkpointing else one_layer),
        loss=loss_bytes(shape, settings, tokens) if head else 0,
        working=working + (one_layer if settings.checkpointing else 0),
        last_layer=working + one_layer,
    )


def residual_width(settings: Settings) -> int:
    """Bytes of a number between two layers: under autocast, trained weights and their sums stay in fp32."""
    return 4 if settings.autocast and settings.train is Train.FULL else width(settings)


def layer_bytes(shape: ModelShape, settings: Settings) -> int:
    """Bytes per token that one layer keeps."""
    number, hidden = width(settings), shape.hidden
    norms = 2 * 4 * hidden  # their inputs in fp32
    if settings.train is Train.FULL:
        norms += 2 * residual_width(settings) * hidden  # and their normalised inputs, for the weights' gradients
    # Queries, keys, values, the output and its normaliser. A mask makes keys and values repeat for every head.
    keys = shape.query if settings.padded or settings.eager_attention else shape.key
    attention = number * 2 * (shape.query + keys) + 4 * shape.heads
    if settings.eager_attention:
        per_score = 4 + 2 if settings.half else 4
        attention += per_score * shape.heads * settings.sequence
    feed_forward = number * (3 if shape.gated else 1) * shape.intermediate
    # All layers' outputs are asked for; in 16 bits the norms' fp32 inputs are other tensors.
    outputs = 2 * hidden if settings.contrastive and residual_width(settings) == 2 else 0
    return outputs + norms + attention + feed_forward + number * _matrix_inputs(shape, settings)


def _matrix_inputs(shape: ModelShape, settings: Settings) -> int:
    """Numbers per token kept as inputs of matrices that have something to learn."""
    if settings.train is Train.FULL:
        wanted = set(shape.linears)
    elif settings.low_rank:
        wanted = set(shape.linears) & settings.targets if settings.targets else set(shape.linears)
    else:
        return 0
    # Under autocast each matrix casts its input for itself, unless it has the right type already.
    own_copy = {"attention", "feed-forward"} if settings.autocast else set()
    total, seen = 0, set()
    for name in sorted(wanted):
        group = _INPUTS[name]
        if group in seen and group not in own_copy:
            continue
        seen.add(group)
        if group == "output" and not (settings.autocast and settings.low_rank):
            continue  # the attention keeps it anyway
        total += shape.linears[name][0]
    if settings.low_rank:
        total += settings.rank * len(wanted)
    return total


def _extra_tokens(settings: Settings) -> int:
    """Positions that a trained prefix adds to the attention of each record; counted as whole ones."""
    return settings.virtual_tokens if settings.train is Train.PREFIX else 0
