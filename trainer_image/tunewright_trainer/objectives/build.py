"""spec.objective -> what the loop minimises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tunewright_api import objective as api
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.batches import make_batch
from tunewright_trainer.data import store
from tunewright_trainer.data.split import sample
from tunewright_trainer.layout import Layout
from tunewright_trainer.loader import to_device
from tunewright_trainer.objectives.distillation import Distillation
from tunewright_trainer.objectives.dpo import Dpo
from tunewright_trainer.objectives.ewc import ElasticWeights, anchors_of, estimate_fisher
from tunewright_trainer.objectives.forward import bare
from tunewright_trainer.objectives.objective import Objective
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.objectives.teacher import load_teacher
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.precision import autocast_dtype, half


def build_objective(config: TrainerConfig, layout: Layout, model: nn.Module, device: torch.device) -> Objective:
    """The objective of a run.

    All ranks call it together, before the strategy wraps the model and before a checkpoint is restored: here the model
    still is what training starts from, so that EWC finds w* whichever attempt this is.

    Args:
        config: The run.
        layout: Where prepare left what the objective needs.
        model: The base model with its adapters, if any.
        device: Where the model computes.

    Raises:
        StageError: INVALID_CONFIG for a method that EWC cannot hold; INPUT_NOT_READABLE before prepare.
    """
    if config.objective.dpo:
        return Dpo(beta=config.objective.dpo.beta, label_smoothing=config.objective.dpo.label_smoothing)
    supervised = config.objective.supervised or api.Supervised()
    contrastive = supervised.contrastive
    return Supervised(
        distillation=_distillation(config, supervised.distillation, model, device),
        contrastive=(contrastive.weight, contrastive.margin) if contrastive else None,
        ewc=_elastic_weights(config, layout, supervised.ewc, model, device),
    )


def _distillation(
    config: TrainerConfig, distillation: api.Distillation | None, model: nn.Module, device: torch.device
) -> Distillation | None:
    if distillation is None:
        return None
    assert config.objective_inputs.teacher, "a rule of TrainerConfig"
    student: Any = bare(model)
    teacher = load_teacher(
        Path(config.objective_inputs.teacher),
        _dtype(half(config)) or torch.float32,
        student.config._attn_implementation,
        device,
    )
    return Distillation(teacher, distillation.temperature, distillation.alpha)


def _elastic_weights(
    config: TrainerConfig, layout: Layout, ewc: api.Ewc | None, model: nn.Module, device: torch.device
) -> ElasticWeights | None:
    if ewc is None:
        return None
    known = sample(store.read(layout.reference_records), ewc.samples, config.hyperparameters.seed)
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    anchors = anchors_of(model.to(device))
    # One backward pass per record, without the loss scaling that fp16 needs.
    cast = casting(device, torch.bfloat16 if half(config) == "float16" else _dtype(autocast_dtype(config)))
    estimate_fisher(model, [to_device(make_batch([record]), device) for record in known[rank::size]], anchors, cast)
    if not rank:
        log.info("Fisher information estimated", records=len(known), tensors=len(anchors))
    return ElasticWeights(anchors, ewc.lambda_)


def _dtype(name: str | None) -> torch.dtype | None:
    return getattr(torch, name) if name else None
