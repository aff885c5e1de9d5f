"""Which code computes: attention, Liger's fused kernels, torch.compile, NEFTune's noise, 8-bit products.

`choose` decides and is pure; `look_around` asks the machine; the rest puts a choice into effect.
"""

import math
import os
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunewright_api.hyperparameters import AttentionBackend, Hyperparameters, Precision
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

FP8_CAPABILITY = (9, 0)
"""CUDA compute capability of Hopper, the first generation whose 8-bit products are worth it in training."""

_NAMES = {
    AttentionBackend.EAGER: "eager",
    AttentionBackend.SDPA: "sdpa",
    AttentionBackend.FLASH_ATTENTION_2: "flash_attention_2",
}

LIGER_OPTIONS = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "geglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Our objectives compute the loss themselves, from the positions that count; a function ignores what it lacks."""


@dataclass(frozen=True)
class Machine:
    """What this process computes on.

    Attributes:
        device: cpu or cuda.
        capability: CUDA compute capability; None on a CPU.
        flash: Whether flash-attn is installed and works here.
        liger_models: Types of models (config.model_type) that Liger has kernels for; empty where it cannot run.
        compiler: Whether there is the C or C++ compiler that torch.compile runs.
    """

    device: str
    capability: tuple[int, int] | None
    flash: bool
    liger_models: frozenset[str]
    compiler: bool = True


@dataclass(frozen=True)
class Kernels:
    """The choice, as the log and the report show it.

    Attributes:
        attention: transformers' name of the implementation.
        liger: Whether Liger's kernels are used.
        fp8: Whether products of linear layers are computed in 8 bits.
        compile: Whether layers are compiled.
        notes: Why something that was asked for is not used.
    """

    attention: str
    liger: bool
    fp8: bool
    compile: bool
    notes: tuple[str, ...] = ()

    def in_words(self) -> dict[str, str]:
        """For the report: names of things -> what they are."""

        def used(what: bool) -> str:
            return "used" if what else "not used"

        return {
            "Attention": self.attention,
            "Liger kernels": used(self.liger),
            "8-bit products": used(self.fp8),
            "torch.compile": used(self.compile),
        }


def choose(hyperparameters: Hyperparameters, model_type: str, machine: Machine) -> Kernels:
    """The kernels of a run.

    Raises:
        StageError: INVALID_CONFIG for what was asked for by name and does not exist here.
    """
    h = hyperparameters
    liger = h.liger_kernels and model_type in machine.liger_models
    notes: tuple[str, ...] = ()
    if h.liger_kernels and not liger:
        where = f"models of type {model_type}" if machine.liger_models else "this device"
        notes = (f"ligerKernels: Liger has no kernels for {where}, so PyTorch's own are used",)
    if h.precision is Precision.FP8 and (machine.capability is None or machine.capability < FP8_CAPABILITY):
        have = "a CPU" if machine.capability is None else f"compute capability {'.'.join(map(str, machine.capability))}"
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"hyperparameters.precision: FP8 needs an NVIDIA GPU of compute capability 9.0 (Hopper) or newer and this "
            f"process has {have}: use BF16",
        )
    if h.torch_compile and not machine.compiler:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "hyperparameters.torchCompile: true needs a C++ compiler, and this image has none: set it to false, or "
            "give an image with g++",
        )
    return Kernels(
        attention=_attention(h, machine),
        liger=liger,
        fp8=h.precision is Precision.FP8,
        compile=h.torch_compile,
        notes=notes,
    )


def _attention(h: Hyperparameters, machine: Machine) -> str:
    flash = machine.flash and h.precision is not Precision.FP32
    if h.attention_backend is AttentionBackend.AUTO:
        return "flash_attention_2" if flash else "sdpa"
    if h.attention_backend is AttentionBackend.FLASH_ATTENTION_2 and not flash:
        why = "computes in half precision only" if machine.flash else "is not installed in this image, or has no GPU"
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"hyperparameters.attentionBackend: FlashAttention2 {why}: use Auto or SDPA",
        )
    return _NAMES[h.attention_backend]


def look_around(device: str) -> Machine:
    """Ask the machine."""
    if device == "cpu":
        return Machine(
            "cpu", None, flash=False, liger_models=frozenset(), compiler=_finds(os.environ.get("CXX", "g++"))
        )
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers.utils import is_flash_attn_2_available

    return Machine(
        device=device,
        capability=torch.cuda.get_device_capability(),
        flash=is_flash_attn_2_available(),
        liger_models=frozenset(MODEL_TYPE_TO_APPLY_LIGER_FN),
        compiler=_finds(os.environ.get("CC", ""), "gcc", "clang"),  # Triton's launchers are C
    )


def _finds(*commands: str) -> bool:
    return any(map(shutil.which, commands))


def apply_liger(model: Any) -> None:
    """Replace norms, rotary positions and gated layers of a transformers model by Liger's."""
    import inspect

    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    patch = MODEL_TYPE_TO_APPLY_LIGER_FN[model.config.model_type]
    known = inspect.signature(patch).parameters
    patch(model=model, **{name: value for name, value in LIGER_OPTIONS.items() if name in known})


def compile_layers(model: Any) -> None:
    """Compile each decoder layer in place: names of parameters stay, and equal layers share one compilation.

    Lengths differ from batch to batch, so shapes are dynamic from the start.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True)


def decoder_layers(model: Any) -> nn.ModuleList:
    """The repeated blocks of a causal language model: the longest list of modules in it."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def add_noise(model: Any, alpha: float) -> None:
    """NEFTune (Jain et al. 2023, arXiv:2310.05914): in training, embeddings + alpha / sqrt(L d) x U(-1, 1).

    L is the length of the rows, padding included, and d the width.
    """

    def noisy(module: nn.Module, _: Any, embeddings: Tensor) -> Tensor:
        if not module.training:
            return embeddings
        bound = alpha / math.sqrt(embeddings.shape[-2] * embeddings.shape[-1])
        return embeddings + torch.empty_like(embeddings).uniform_(-bound, bound)

    model.get_input_embeddings().register_forward_hook(noisy)
