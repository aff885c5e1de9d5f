"""Each objective from the user's files to trained weights, on the tiny model: prepare and train in this process."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.objective_run import FULL, LORA, QLORA, codes, colours, pairs, run
from tests.trainer.support import Job, make_job
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.batches import padded
from tunewright_trainer.data import store
from tunewright_trainer.errors import StageError
from tunewright_trainer.layout import Layout
from tunewright_trainer.stages import prepare

DESCRIPTION = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model after it learnt the codes."""
    root = tmp_path_factory.mktemp("expert")
    job = make_job(root, tiny_model, method=FULL, hyperparameters={"maxSteps": 40, "learningRate": 1e-2})
    job.config["dataset"]["path"] = codes(root / "codes.jsonl")
    losses = run(job).losses
    assert losses[-1] < 0.5 * losses[0]
    for name in DESCRIPTION:
        shutil.copyfile(tiny_model / name, job.work / "trained" / name)
    return job.work / "trained"


@pytest.fixture
def colour_job(tmp_path: Path, expert: Path) -> Callable[..., Job]:
    """The expert learns the colours."""

    def make(name: str, method: dict[str, Any], objective: dict[str, Any], **inputs: str) -> Job:
        hyperparameters = {"maxSteps": 12, "learningRate": 5e-3 if method == FULL else 3e-2, "microBatchSize": 4}
        job = make_job(tmp_path / name, expert, method=method, hyperparameters=hyperparameters)
        job.config["dataset"]["path"] = colours(job.root / "colours.jsonl")
        job.config |= {"objective": objective, "objectiveInputs": inputs}
        return job

    return make


def answer_loss(model: Any, records: Path) -> float:
    """Mean over the assistant's tokens, by transformers' own loss."""
    total, count = 0.0, 0
    for record in store.read(records):
        inputs, expected = padded([record])
        predicted = int((expected[:, 1:] != -100).sum())
        with torch.no_grad():
            total += model(**inputs, labels=expected).loss.item() * predicted
        count += predicted
    return total / count


def trained_model(job: Job) -> Any:
    """What the run made, adapters merged."""
    trained = job.work / "trained"
    if "full" in job.config["method"]:
        return AutoModelForCausalLM.from_pretrained(trained).eval()
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(job.config["model"]["path"])
    return PeftModel.from_pretrained(base, str(trained)).merge_and_unload().eval()


@pytest.mark.parametrize("method", [FULL, LORA, QLORA], ids=["full", "lora", "qlora"])
def test_ewc_keeps_what_the_reference_set_needs(
    tmp_path: Path, expert: Path, colour_job: Callable[..., Job], method: dict[str, Any]
) -> None:
    reference = codes(tmp_path / "reference.jsonl")
    ewc = {"lambda": 30000, "reference": {"uri": "pvc://a/reference.jsonl", "format": "Alpaca"}, "samples": 16}
    held = run(colour_job("held", method, {"supervised": {"ewc": ewc}}, reference=reference))
    free = run(colour_job("free", method, {}))
    known = Layout(TrainerConfig.model_validate(held.job.config)).reference_records
    before = answer_loss(AutoModelForCausalLM.from_pretrained(expert).eval(), known)
    with_ewc, without = answer_loss(trained_model(held.job), known), answer_loss(trained_model(free.job), known)
    assert without > before + 0.3, "the colours make the model forget the codes"
    assert with_ewc - before < 0.5 * (without - before)
    assert held.losses[-1] < held.losses[0], "and it still learns the colours"
    assert held.losses[0] == pytest.approx(free.losses[0], rel=1e-5), "the loss that is reported leaves the penalty out"
    assert held.figure("ewcPenalty")[0] == 0
    assert held.figure("ewcPenalty")[-1] > 0


def test_evaluating_in_between_does_not_change_what_qlora_learns(job: Callable[..., Job]) -> None:
    plain, evaluated = (
        run(job(name, method=QLORA, evaluation=evaluation)).losses
        for name, evaluation in (("plain", {}), ("evaluated", {"everySteps": 1}))
    )
    assert evaluated == pytest.approx(plain, rel=1e-5)


def test_distillation_moves_the_student_towards_the_teacher(
    job: Callable[..., Job], tmp_path: Path, expert: Path
) -> None:
    student = job(method=FULL, hyperparameters={"maxSteps": 25, "learningRate": 1e-2})
    student.config["dataset"]["path"] = codes(tmp_path / "codes.jsonl")
    distillation = {"teacher": {"uri": "pvc://a/expert"}, "temperature": 2.0, "alpha": 0.9}
    student.config |= {
        "objective": {"supervised": {"distillation": distillation}},
        "objectiveInputs": {"teacher": str(expert)},
    }
    done = run(student)
    divergence, cross_entropy = done.figure("divergence"), done.figure("crossEntropy")
    assert divergence[-1] < 0.3 * divergence[0]
    assert cross_entropy[-1] < 0.7 * cross_entropy[0]
    assert done.losses[0] == pytest.approx(0.9 * divergence[0] + 0.1 * cross_entropy[0], rel=1e-5)


def test_the_contrastive_loss_pulls_tokens_apart_while_the_answers_are_learnt(job: Callable[..., Job]) -> None:
    settings = {"maxSteps": 15, "learningRate": 1e-2}
    plain = run(job("plain", method=FULL, hyperparameters=settings))
    apart_job = job("apart", method=FULL, hyperparameters=settings)
    apart_job.config["objective"] = {"supervised": {"contrastive": {"weight": 1.0, "margin": 0.9}}}
    apart = run(apart_job)
    assert apart.figure("crossEntropy")[0] == pytest.approx(plain.losses[0], rel=1e-5)
    assert apart.figure("crossEntropy")[-1] < 0.8 * plain.losses[0]
    assert apart.figure("contrastive")[-1] < 0.7 * apart.figure("contrastive")[0]


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_dpo_learns_the_preference(job: Callable[..., Job], tmp_path: Path, method: dict[str, Any]) -> None:
    preference = job(
        method=method,
        hyperparameters={"maxSteps": 12, "learningRate": 5e-3},
        evaluation={"everySteps": 6},
        objective={"dpo": {"beta": 0.5, "labelSmoothing": 0.05}},
    )
    preference.config["dataset"] |= {"path": pairs(tmp_path / "pairs.jsonl"), "format": "Preference"}
    done = run(preference)
    margins = done.figure("rewardMargin")
    assert done.losses[0] == pytest.approx(math.log(2), rel=1e-5), "the model starts as its own reference"
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert margins[-1] > 1
    assert done.losses[-1] < 0.5
    assert done.figure("rewardAccuracy")[-1] == 1
    assert done.figure("rewardChosen")[-1] > done.figure("rewardRejected")[-1]
    held_out = [step.figures["evalLoss"] for step in done.steps if "evalLoss" in step.figures]
    assert held_out[-1] < math.log(2), "it is preferred where it was not trained, too"


def test_a_resumed_dpo_run_measures_against_the_same_reference(job: Callable[..., Job], tmp_path: Path) -> None:
    settings = {"maxSteps": 6, "learningRate": 5e-3}
    dataset = {"path": pairs(tmp_path / "pairs.jsonl"), "format": "Preference"}
    runs = []
    for name in ("whole", "halved"):
        one = job(name, method=FULL, hyperparameters=settings, objective={"dpo": {}}, checkpoint={"everySteps": 3})
        one.config["dataset"] |= dataset
        runs.append(one)
    whole, halved = runs
    expected = run(whole)
    stopped = run(halved, steps=3)
    rest = run(halved)
    assert [step.step for step in rest.steps] == [4, 5, 6]
    assert stopped.losses + rest.losses == pytest.approx(expected.losses, rel=1e-5)


@pytest.mark.parametrize("change", ["vocabulary", "missing"])
def test_prepare_refuses_a_teacher_that_cannot_teach(
    job: Callable[..., Job], tmp_path: Path, tiny_model: Path, change: str
) -> None:
    teacher = tmp_path / "teacher"
    if change == "vocabulary":
        shutil.copytree(tiny_model, teacher)
        tokenizer = json.loads((teacher / "tokenizer.json").read_text())
        first, second = list(tokenizer["model"]["vocab"])[:2]
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    student = job()
    student.config |= {
        "objective": {"supervised": {"distillation": {"teacher": {"uri": "pvc://a/teacher"}}}},
        "objectiveInputs": {"teacher": str(teacher)},
    }
    with pytest.raises(StageError) as refusal:
        prepare.run(TrainerConfig.model_validate(student.config))
    wanted = {"vocabulary": ExitCode.INVALID_CONFIG, "missing": ExitCode.INPUT_NOT_READABLE}
    assert refusal.value.code is wanted[change]
    assert "objective.supervised.distillation.teacher.uri" in refusal.value.message
    assert "\n" not in refusal.value.message
