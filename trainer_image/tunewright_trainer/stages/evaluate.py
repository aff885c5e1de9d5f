"""evaluate: base against tuned model on the held-out records. The operator judges the gates."""

import json
from pathlib import Path

from tunewright_api.names import Stage
from tunewright_api.results import EvaluateResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data import store
from tunewright_trainer.data.split import sample
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.errors import not_yet
from tunewright_trainer.evaluation.compare import (
    Material,
    Measured,
    compare,
    judged,
    measure,
    plan_figures,
    refuse_no_numbers,
)
from tunewright_trainer.evaluation.judge import check_judge
from tunewright_trainer.evaluation.kept import Kept
from tunewright_trainer.evaluation.models import limit_threads, models
from tunewright_trainer.files import write_atomic
from tunewright_trainer.imports import skip
from tunewright_trainer.layout import Layout

MODELS = ("base", "tuned")


def run(config: TrainerConfig) -> EvaluateResult:
    """Evaluate both models and write work/evaluation.json. What an earlier attempt measured is not measured again."""
    layout, evaluation = Layout(config), config.evaluation
    if not layout.trained.is_dir():
        raise not_yet(layout.trained, Stage.TRAIN)
    material = _material(config, layout)
    if evaluation.judge:
        check_judge(evaluation.judge)
    kept = Kept(layout.measured, config, layout.trained)
    measured = kept.read()
    if len(measured) < len(MODELS):
        _measure(config, layout, material, kept, measured)
    if evaluation.judge:
        measured = {name: judged(found, material, evaluation.judge) for name, found in measured.items()}
    result = compare(measured["base"], measured["tuned"], len(material.records), evaluation)
    write_atomic(layout.evaluation, json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    kept.remove()
    log.info("evaluated", **{pair.metric.value: [pair.base, pair.tuned] for pair in result.metrics})
    return result


def _measure(
    config: TrainerConfig, layout: Layout, material: Material, kept: Kept, measured: dict[str, Measured]
) -> None:
    """Add to `measured` what it lacks, and keep it after each model."""
    skip("deepspeed")
    if config.evaluation.harness is None:
        # lm-evaluation-harness alone reads its data through it.
        skip("datasets")
    limit_threads()
    for name, model in models(config, layout):
        if name not in measured:
            log.info("evaluating", model=name, records=len(material.records))
            measured[name] = measure(model, material, config.evaluation)
            refuse_no_numbers(name, measured[name].figures)
            kept.write(measured)
        # Freed before the next one is loaded.
        del model


def _material(config: TrainerConfig, layout: Layout) -> Material:
    evaluation, seed = config.evaluation, config.hyperparameters.seed
    held_out = store.read(layout.validation_records)
    general = store.read(layout.general_records) if evaluation.general else []
    harness = config.evaluation_inputs.harness
    return Material(
        plan=plan_figures(evaluation, held_out),
        records=sample(held_out, evaluation.max_records, seed),
        general=sample(general, evaluation.max_records, seed),
        harness=Path(harness) if harness else None,
        encoder=load_encoder(layout.base_model),
        base=layout.base_model,
        seed=seed,
    )
