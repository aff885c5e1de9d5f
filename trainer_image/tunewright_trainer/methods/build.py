"""base model + configuration -> the model that is trained."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunewright_api.hyperparameters import AttentionBackend
from tunewright_api.method import Method
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import kernels, log
from tunewright_trainer.data.fit import refuse_tied, refuse_unknown
from tunewright_trainer.errors import StageError
from tunewright_trainer.fp8 import use_fp8
from tunewright_trainer.methods import qlora
from tunewright_trainer.methods.adapter import adapter_arguments
from tunewright_trainer.methods.freeze import freeze
from tunewright_trainer.methods.load import load_model
from tunewright_trainer.methods.lora import lora_arguments
from tunewright_trainer.methods.prefix import prefix_arguments
from tunewright_trainer.precision import deepspeed_casts, weights_dtype

_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules that peft adapts, apart from transformers' Conv1D."""

_SUPPORT = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
"""Where transformers' models say that they compute with an implementation of attention."""

_DROPOUT = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
"""What transformers' configurations call the dropout on attention weights."""


def build_model(config: TrainerConfig, path: Path, device: str) -> nn.Module:
    """Load the base model in its training dtype and make trainable what the method trains, in training mode.

    Weights in 4 bits are on the device at once; all others are where transformers puts them (on the CPU, or sharded
    by DeepSpeed), and the strategy moves them.

    Args:
        config: The run.
        path: Directory of the base model.
        device: cpu or cuda.

    Raises:
        StageError: INVALID_CONFIG for what the model or the device does not have.
    """
    h, method = config.hyperparameters, config.method
    settings = _settings(path, h.attention_dropout)
    chosen = choose_kernels(config, path, device)
    _say(chosen)
    model = _load(config, path, device, settings, chosen.attention)
    if chosen.liger:
        kernels.apply_liger(model)
    if h.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if h.neftune_noise_alpha is not None:
        kernels.add_noise(model, h.neftune_noise_alpha)
    if method.full is None:
        model = add_adapter(model, method)
        if not deepspeed_casts(config):
            _train_in_float32(model)
    elif method.full.freeze:
        freeze(model, method.full.freeze)
    if chosen.fp8:
        use_fp8(model)
    if chosen.compile:
        kernels.compile_layers(model)
    return model.train()


def choose_kernels(config: TrainerConfig, path: Path, device: str) -> kernels.Kernels:
    """Which code computes this model here; arguments and errors as for `build_model`."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    h, settings = config.hyperparameters, _settings(path, None)
    chosen = kernels.choose(h, settings.model_type, kernels.look_around(device))
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
    if getattr(model, _SUPPORT.get(chosen.attention, ""), True):
        return chosen
    without = f"models of type {settings.model_type} do not compute with {chosen.attention}"
    if h.attention_backend is not AttentionBackend.AUTO:
        raise StageError(
            ExitCode.INVALID_CONFIG, f"hyperparameters.attentionBackend: {without}: leave it out, or use Eager"
        )
    attention = "sdpa" if model._supports_sdpa else "eager"
    return replace(
        chosen, attention=attention, notes=(*chosen.notes, f"attentionBackend: {without}, so {attention} is used")
    )


def add_adapter(model: Any, method: Method) -> Any:
    """A PeftModel around a base model, whose own weights are frozen.

    Raises:
        StageError: INVALID_CONFIG for a model that has no place for this adapter.
    """
    import peft

    if method.low_rank is not None and method.low_rank.target_modules:
        field = f"method.{'lora' if method.lora else 'qlora'}.targetModules"
        _check_targets(model, field, method.low_rank.target_modules)
    try:
        return peft.get_peft_model(model, _peft_config(model, method))
    except ValueError as error:
        field = next(name for name, value in method.to_dict().items() if value is not None)
        raise StageError(ExitCode.INVALID_CONFIG, f"method.{field}: {str(error).splitlines()[0]}") from error


def _check_targets(model: Any, field: str, targets: list[str]) -> None:
    """peft adapts what it finds and says nothing of the rest."""
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in model.named_modules() if isinstance(module, (*_ADAPTABLE, Conv1D))}
    named = {target: [name for name in modules if f".{name}".endswith(f".{target}")] for target in targets}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is embedding.weight:
        shared = {name for name, module in modules.items() if module in (embedding, head)}
        if tied := [target for target, names in named.items() if shared.intersection(names)]:
            raise refuse_tied(field, tied)
    if unknown := [target for target, names in named.items() if not names]:
        linear = [name for name, module in modules.items() if isinstance(module, (nn.Linear, Conv1D))]
        raise refuse_unknown(field, unknown, {name.rpartition(".")[2] for name in linear} - {"lm_head"})


def _peft_config(model: Any, method: Method) -> Any:
    import peft

    if method.low_rank is not None:
        return peft.LoraConfig(**lora_arguments(method.low_rank))
    if method.prefix_tuning is not None:
        return peft.PrefixTuningConfig(**prefix_arguments(method.prefix_tuning))
    assert method.adapter is not None, "the schema asks for exactly one method"
    return peft.AdaptionPromptConfig(**adapter_arguments(method.adapter, model.config.num_hidden_layers))


def _settings(path: Path, attention_dropout: float | None) -> Any:
    """The base model's configuration, with another dropout if asked for."""
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(path, local_files_only=True)
    if attention_dropout is not None:
        name = next((name for name in _DROPOUT if hasattr(settings, name)), None)
        if name is None:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"hyperparameters.attentionDropout: models of type {settings.model_type} have none: remove it",
            )
        setattr(settings, name, attention_dropout)
    return settings


def _load(config: TrainerConfig, path: Path, device: str, settings: Any, attention: str) -> Any:
    options: dict[str, Any] = {}
    if config.method.qlora is not None:
        options["quantization_config"] = qlora.quantization(config.method.qlora, config.hyperparameters.precision)
        options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else "cpu"}
    model = load_model(
        path,
        config=settings,
        dtype=getattr(torch, weights_dtype(config)),
        attn_implementation=attention,
        **options,
    )
    if config.method.qlora is not None:
        qlora.keep_trainable(model)
        qlora.let_go_of_files(model)
    model.config.use_cache = False
    return model


def _train_in_float32(model: nn.Module) -> None:
    """Updates of a small adapter vanish in half precision: autocast computes with rounded copies."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _say(chosen: kernels.Kernels) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    log.info("kernels", attention=chosen.attention, liger=chosen.liger, fp8=chosen.fp8, compile=chosen.compile)
    for note in chosen.notes:
        log.info(note)
