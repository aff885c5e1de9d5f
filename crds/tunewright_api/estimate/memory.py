"""Memory per device of a training run, as a sum of parts. Pure arithmetic: no torch.

A step has two peaks, and the greater one counts: when the backward pass begins (all activations, no gradients yet) and
when it ends and the optimizer updates (all gradients, no activations). Between them both change linearly with the
layers. In a pipeline the first stage keeps the activations of as many micro batches as there are stages, the last one
has the loss (Narayanan et al. 2021, arXiv:2104.04473, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from tunewright_api.estimate.activations import compute_activations
from tunewright_api.estimate.model_states import Part, compute_states, count_trained
from tunewright_api.estimate.objectives import held_bytes, penalty_working_bytes
from tunewright_api.estimate.settings import Settings
from tunewright_api.estimate.shape import ModelShape

CONTEXT_BYTES = 800 * 2**20
"""What CUDA, cuBLAS and NCCL take of a GPU before the first tensor: 0.5 to 1 GiB with PyTorch on A100 and H100."""

FRAGMENTATION = 0.1
"""Share of the activations that PyTorch's caching allocator holds in blocks that do not fit what is asked for."""


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
        objective: What the objective holds besides: a teacher, and what EWC remembers.
        framework: CUDA's context and what the allocator cannot use; 0 on a CPU.
        host: Bytes in the host's memory instead, per process: what is offloaded. Not part of the total.
        disk: Bytes on the NVMe disk instead, per process, with the copy that a checkpoint makes there.
        checkpoint: Bytes in the host's memory, per process, while a checkpoint is written beside the training. Not part
            of the total, on a CPU neither.
    """

    moment: Moment
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    objective: int
    framework: int
    host: int = 0
    disk: int = 0
    checkpoint: int = 0

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
            "objective": self.objective,
            "framework": self.framework,
        }


def compute_memory(shape: ModelShape, settings: Settings) -> Memory:
    """Memory of the device that needs most: the first or the last stage of a pipeline, else any."""
    return max((_part_memory(shape, settings, part) for part in _parts(shape, settings)), key=lambda one: one.total)


def trainable_parameters(shape: ModelShape, settings: Settings) -> int:
    """Numbers that the optimizer changes, in the whole model."""
    return count_trained(shape, settings, _whole(shape))


def _whole(shape: ModelShape) -> Part:
    return Part(shape.layers, embeddings=1 if shape.tied else 2, in_flight=1, head=True)


def _parts(shape: ModelShape, settings: Settings) -> list[Part]:
    """The first and the last stage of a pipeline, or the whole model."""
    stages = min(settings.pipeline, shape.layers)
    if stages == 1:
        return [_whole(shape)]
    first = Part(-(-shape.layers // stages), 1, in_flight=min(stages, settings.accumulation), head=False)
    return [first, replace(first, in_flight=1, head=True)]


def _part_memory(shape: ModelShape, settings: Settings, part: Part) -> Memory:
    states = compute_states(shape, settings, part)
    forward = compute_activations(shape, settings, part.layers, part.in_flight, head=part.head)
    held = held_bytes(shape, settings, count_trained(shape, settings, part))
    # The head's gradient comes when the logits are gone, and before any other.
    around = max(forward.loss, forward.working, forward.loss // 2 + states.head_gradient)
    # The gradients of EWC's penalty, of all that is trained, come before those of the loss.
    around = max(around, penalty_working_bytes(shape, settings))
    backward = _memory(
        settings,
        Moment.BACKWARD,
        weights=states.weights + states.casts,
        gradients=states.gradients if settings.keeps_gradients else 0,
        optimizer=states.optimizer,
        activations=forward.kept + around,
        buffers=states.bucket,
        objective=held,
        host=states.host,
        disk=states.disk,
        checkpoint=states.checkpoint,
    )
    # The last gradients come while one layer is left; then the update has the memory to itself.
    briefly = max(forward.last_layer, states.tied_gradients, states.converting)
    tied = briefly if briefly == states.tied_gradients else 0
    last_layer = briefly if not tied and briefly == forward.last_layer else 0
    update = _memory(
        settings,
        Moment.UPDATE,
        weights=states.weights,
        gradients=states.gradients + tied,
        optimizer=states.optimizer,
        activations=last_layer,
        buffers=states.bucket + (0 if tied or last_layer else briefly),
        objective=held,
        host=states.host,
        disk=states.disk,
        checkpoint=states.checkpoint,
    )
    return max(backward, update, key=lambda memory: memory.total)


def _memory(settings: Settings, moment: Moment, *, activations: int, **parts: int) -> Memory:
    framework = CONTEXT_BYTES + int(FRAGMENTATION * activations) if settings.gpu else 0
    return Memory(moment, activations=activations, framework=framework, **parts)
