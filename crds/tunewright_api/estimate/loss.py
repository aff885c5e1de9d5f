"""Bytes around the loss: logits, their gradients, and what terms beside the cross entropy compute with them.

Every token is taken to count for the loss; those of the user need none, so most runs need less. The terms' backward
passes run one after the other, the last one made first, while all activations are there.
"""

from tunewright_api.estimate.settings import Settings, width
from tunewright_api.estimate.shape import ModelShape

LOSS_CHUNK = 1 << 24
"""Logits that the trainer holds in fp32 at a time."""

SIMILARITIES = 1 << 24
"""Similarities that the contrastive loss holds at a time."""


def loss_bytes(shape: ModelShape, settings: Settings, tokens: int) -> int:
    """The most that is there at a time beside the layers' activations."""
    logits = width(settings) * tokens * shape.vocabulary
    chunk = 4 * min(tokens * shape.vocabulary, LOSS_CHUNK)
    # The logits and their gradient, with chunks of them in fp32.
    moments = [2 * logits + (2 if settings.half else 1) * chunk]
    if settings.teacher:
        moments += distillation_moments(settings, settings.teacher, tokens, logits, chunk)
    states = 0
    if settings.contrastive:
        states, block = contrastive_bytes(shape, settings, tokens)
        moments.append(logits + block)
    return states + max(moments)


def distillation_moments(settings: Settings, teacher: ModelShape, tokens: int, logits: int, chunk: int) -> list[int]:
    """Bytes at three moments of a step with a teacher (Hinton et al. 2015, arXiv:1503.02531, section 2).

    It computes beside the student's logits, keeping nothing but the widest tensors of a layer. The divergence goes over
    both logits in chunks, with five in fp32 at a time: both softened, their logarithms and a product. At the end there
    are both logits and two gradients of the student's, of the divergence and of the cross entropy.
    """
    theirs = width(settings) * tokens * teacher.vocabulary
    working = width(settings) * tokens * 3 * teacher.intermediate
    return [logits + theirs + working, logits + theirs + 5 * chunk, 3 * logits + theirs + chunk]


def contrastive_bytes(shape: ModelShape, settings: Settings, tokens: int) -> tuple[int, int]:
    """(the hidden states in fp32, as they are, of length 1, and their gradient; the similarities of one answer).

    SimCTG compares each token with each (Su et al. 2022, arXiv:2202.06417, eq. 3): n^2 similarities for n tokens, in
    blocks. Of a block there are the cosines, the excess over the margin and the gradient.
    """
    return 3 * 4 * tokens * shape.hidden, 3 * 4 * min(settings.sequence**2, SIMILARITIES)
