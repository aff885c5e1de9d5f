"""QLoRA: the linear layers of the base in 4 bits (NF4), restored block by block when they compute."""

import logging
from typing import Any

import torch
from torch import nn

from tunewright_api.hyperparameters import Precision
from tunewright_api.method import QloraMethod

BLOCK = 64
"""Weights that share one scale: bitsandbytes' default, and that of the paper."""

_DTYPES = {"BF16": "bfloat16", "FP16": "float16", "FP32": "float32"}


def quantization_arguments(method: QloraMethod, precision: Precision) -> dict[str, Any]:
    """Keyword arguments of transformers.BitsAndBytesConfig, dtypes by their name in torch."""
    dtype = method.compute_dtype.value if method.compute_dtype else precision.value
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": method.double_quantization,
        "bnb_4bit_compute_dtype": _DTYPES[dtype],
    }


def quantization(method: QloraMethod, precision: Precision) -> Any:
    """transformers' configuration, for from_pretrained."""
    silence()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**quantization_arguments(method, precision))


def keep_trainable(model: nn.Module) -> None:
    """In evaluation mode bitsandbytes packs weights anew on CPUs with AVX512-BF16, for good, and no gradient passes
    through packed ones: a run that evaluates in between, or estimates Fisher information, would go on half trained."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def let_go_of_files(model: nn.Module) -> None:
    """Copy what stays as it was in the files. On a CPU such a weight is a view of its mapped file, whose pages all stay
    in this process's memory as long as one view does: those of the weights that are in 4 bits now, too."""
    from bitsandbytes.nn import Params4bit

    for parameter in model.parameters():
        if parameter.device.type == "cpu" and not isinstance(parameter, Params4bit):
            parameter.data = parameter.data.clone()


@torch.no_grad()  # type: ignore[untyped-decorator]
def round_trip(model: nn.Module, method: QloraMethod, dtype: torch.dtype) -> None:
    """Replace the weights that training saw in 4 bits by what it saw: quantised and restored, in place.

    An adapter is trained against the rounding errors of its base; merging it into the exact weights would bring in
    errors that it never met.

    Args:
        model: Its weights are in the dtype of the files, or a wider one.
        method: How training quantised.
        dtype: What training rounded the weights to before.
    """
    silence()
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for module in quantized_layers(model):
        packed, state = quantize_4bit(
            module.weight.data.to(dtype),
            blocksize=BLOCK,
            quant_type="nf4",
            compress_statistics=method.double_quantization,
        )
        module.weight.data = dequantize_4bit(packed, state).to(module.weight.dtype)


def quantized_layers(model: nn.Module) -> list[nn.Linear]:
    """The layers that transformers quantises: linear ones but the head, and what is tied to it."""
    from transformers.quantizers.base import get_keys_to_not_convert

    kept = set(get_keys_to_not_convert(model))
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(name == key or name.startswith(f"{key}.") for key in kept)
    ]


def silence() -> None:
    """Without the package `kernels` bitsandbytes warns on some CPUs that inference could be faster; here it trains."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
