"""What a model costs to train, and what the devices have for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tunewright_trainer.flops import ModelShape, Utilisation, peak_flops
from tunewright_trainer.memory import device_bytes
from tunewright_trainer.processes import Processes
from tunewright_trainer.steps import StepRecord


@dataclass(frozen=True)
class Hardware:
    """What the figures of a step are held against.

    Attributes:
        utilisation: Of all devices of the run.
        memory: Bytes of this process's GPU; None on a CPU.
    """

    utilisation: Utilisation
    memory: int | None

    def memory_percent(self, record: StepRecord) -> float | None:
        """Memory allocated on the GPU after a step, in percent; None on a CPU."""
        return round(100 * record.memory_bytes / self.memory, 1) if self.memory else None


def measure_hardware(model: Any, processes: Processes, precision: str, rows_per_record: int) -> Hardware:
    """For a model that is whole and not yet wrapped, and processes that all have a device like this one's."""
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = peak_flops(name, precision)
    utilisation = Utilisation(shape_of(model), peak * processes.world_size if peak else None, rows_per_record)
    return Hardware(utilisation, device_bytes(device))


def shape_of(model: Any) -> ModelShape | None:
    """Weights and layers of a causal language model of transformers, with or without adapters.

    Of a mixture of experts each token computes with some only: the weights of all count by that share. None where the
    configuration does not tell it.
    """
    config = model.config.get_text_config()
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    looked_up = table if head is None or head.weight is not table else None
    matrices = [
        (name, p)
        for name, p in model.named_parameters()
        if p is not looked_up and (p.dim() > 1 or hasattr(p, "ds_shape") or hasattr(p, "quant_state"))
    ]
    experts = {name for name, _ in matrices if ".experts." in name}
    active = _active_share(config) if experts else 1.0
    if active is None:
        return None

    def used(parameters: Iterable[tuple[str, Any]]) -> int:
        return round(sum(_size(p) * (active if name in experts else 1) for name, p in parameters))

    heads = config.num_attention_heads
    return ModelShape(
        weights=used(matrices),
        trained=used((name, p) for name, p in matrices if p.requires_grad),
        layers=config.num_hidden_layers,
        width=heads * (getattr(config, "head_dim", None) or config.hidden_size // heads),
    )


def _active_share(config: Any) -> float | None:
    """Experts that a token meets, of all that it may meet."""
    chosen = getattr(config, "num_experts_per_tok", None)
    counts = (getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
    count = next(filter(None, counts), None)
    return chosen / count if chosen and count else None


def _size(parameter: Any) -> int:
    """Elements of the whole weight: ZeRO-3 keeps a part, 4-bit quantisation packs two in a byte."""
    if getattr(parameter, "quant_state", None) is not None:
        return int(torch.Size(parameter.quant_state.shape).numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))
