"""The rules of the models, held against configuration files that never met an apiserver."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import REPO, Job, make_job
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import rules
from tunewright_trainer.config import load
from tunewright_trainer.errors import StageError

Check = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path) -> Check:
    """The sentences that a file is refused with; it reads as FILE, and an accepted one as nothing."""

    def check(**overrides: Any) -> str:
        job: Job = make_job(tmp_path, tmp_path / "model", **overrides)
        return refused(tmp_path, json.dumps(job.config))

    return check


def refused(directory: Path, content: str) -> str:
    path = directory / "config.json"
    path.write_text(content)
    try:
        load(path, TrainerConfig)
    except StageError as error:
        found = error
    else:
        return ""
    assert found.code is ExitCode.INVALID_CONFIG
    return found.message.replace(str(path), "FILE")


EWC = {"supervised": {"ewc": {"reference": {"uri": "pvc://data/kept.jsonl", "format": "Alpaca"}}}}
KEPT = {"reference": "/data/kept.jsonl"}
WHOLE_WEIGHTS = (
    "objective.supervised.ewc needs whole weights in every process: use distributed.ddp, or deepspeed with zeroStage 0 "
    "to 2"
)


@pytest.mark.parametrize(
    ("overrides", "want"),
    [
        pytest.param({}, "", id="nothing wrong"),
        pytest.param(
            {"method": {"lora": {}, "full": {}}},
            "FILE: method: write exactly one of `full: {}`, `lora: {…}`, `qlora: {…}`, `prefixTuning: {…}` and "
            "`adapter: {…}`",
            id="two methods",
        ),
        pytest.param(
            {"evaluation": {"gates": [{"metric": "Loss", "max": 2}, {"metric": "Loss", "min": 1, "max": 2}]}},
            "FILE: evaluation.gates.1: write exactly one of min and max for each metric",
            id="a gate with both bounds",
        ),
        pytest.param(
            {"evaluation": {"metrics": ["JudgeScore"]}},
            "FILE: evaluation: without evaluation.judge there is no JudgeScore: add it, or ask for others",
            id="a score without a judge",
        ),
        pytest.param(
            {"evaluation": {"harness": {"uri": "pvc://data/tasks", "tasks": ["sums"]}}},
            "FILE: evaluationInputs.harness is the place of evaluation.harness: write both, or neither",
            id="a harness without its directory",
        ),
        pytest.param(
            {"evaluation": {"general": {"uri": "pvc://data/a.jsonl", "format": "Chat"}}},
            "FILE: evaluationInputs.general is the place of evaluation.general: write both, or neither",
            id="a general set without its file",
        ),
        pytest.param(
            {"objective": {"supervised": {"distillation": {"teacher": {"uri": "pvc://models/teacher"}}}}},
            "FILE: objectiveInputs.teacher is the place of objective.supervised.distillation: write both, or neither",
            id="distillation without a teacher",
        ),
        pytest.param(
            {"objectiveInputs": {"teacher": "/models/teacher"}},
            "FILE: objectiveInputs.teacher is the place of objective.supervised.distillation: write both, or neither",
            id="a teacher that nobody asks",
        ),
        pytest.param(
            {"objective": EWC},
            "FILE: objectiveInputs.reference is the place of objective.supervised.ewc: write both, or neither",
            id="EWC without records",
        ),
        pytest.param(
            {"distributed": {"pipeline": {"stages": 2}}, "rendezvous": {"processesPerNode": 2}},
            "FILE: a pipeline needs at least as many micro batches as stages: set "
            "hyperparameters.gradientAccumulationSteps to distributed.pipeline.stages or more",
            id="fewer micro batches than stages",
        ),
        pytest.param(
            {
                "distributed": {"pipeline": {"stages": 2}},
                "rendezvous": {"nodes": 3},
                "hyperparameters": {"gradientAccumulationSteps": 2},
            },
            "FILE: distributed.pipeline.stages must divide the number of processes, numNodes x numProcPerNode",
            id="stages that do not divide the processes",
        ),
        pytest.param(
            {"rendezvous": {"processesPerNode": 2}},
            "FILE: more than one process needs `distributed`, for example `distributed: {deepspeed: {zeroStage: "
            "0..3}}`: add it, or set numNodes and numProcPerNode to 1",
            id="several processes that nothing tells to work together",
        ),
        pytest.param(
            {
                "objective": EWC,
                "objectiveInputs": KEPT,
                "distributed": {"pipeline": {"stages": 2}},
                "rendezvous": {"processesPerNode": 2},
                "hyperparameters": {"gradientAccumulationSteps": 2},
            },
            f"FILE: {WHOLE_WEIGHTS}",
            id="EWC in a pipeline",
        ),
        pytest.param(
            {"objective": EWC, "objectiveInputs": KEPT, "distributed": {"deepspeed": {"zeroStage": 3}}},
            f"FILE: {WHOLE_WEIGHTS}",
            id="EWC with ZeRO-3",
        ),
        pytest.param(
            {"method": {"qlora": {}}, "distributed": {"fsdp": {}}},
            "FILE: method.qlora keeps the whole base in 4 bits in every process: use distributed.ddp, or deepspeed "
            "with zeroStage 0 to 2, or lora with what divides the weights",
            id="QLoRA with FSDP",
        ),
        pytest.param(
            {"hyperparameters": {"packing": True, "microBatchSize": 1}},
            "FILE: hyperparameters.packing puts the records of one micro batch into one row: set microBatchSize to the "
            "number of records that shall share it, 2 or more, or packing to false",
            id="nothing to pack",
        ),
        pytest.param(
            {"distributed": {"deepspeed": {"zeroStage": 0, "offloadOptimizer": "CPU"}}, "dataset": {"path": None}},
            "FILE: dataset: write path and format for one dataset, or mixture for several; distributed.deepspeed: "
            "deepspeed.offloadOptimizer moves what ZeRO shards: set zeroStage to 1, 2 or 3",
            id="two things at once",
        ),
    ],
)
def test_a_rule_that_is_broken_is_told_in_one_sentence(refusal: Check, overrides: dict[str, Any], want: str) -> None:
    assert refusal(**overrides) == want


@pytest.mark.parametrize(
    ("overrides", "want"),
    [
        pytest.param(
            {"hyperparameters": {"learninRate": 1}},
            "FILE: hyperparameters: unknown field learninRate: did you mean learningRate?",
            id="a name with a mistake",
        ),
        pytest.param(
            {"method": {"lora": {"targetmodules": ["q_proj"]}}},
            "FILE: method.lora: unknown field targetmodules: did you mean targetModules?",
            id="a name in other letters",
        ),
        pytest.param(
            {"checkpoint": {"zzz": 1}},
            "FILE: checkpoint: unknown field zzz: remove it; known are everySteps, keepLast",
            id="a name like no other",
        ),
        pytest.param(
            {"hyperparameters": {"microBatchSize": "four", "learningRate": -1, "packing": "x"}},
            "FILE: hyperparameters.learningRate: write more than 0, not -1; hyperparameters.microBatchSize: write a "
            'whole number, not "four"; hyperparameters.packing: write true or false, not "x"',
            id="wrong values",
        ),
        pytest.param(
            {"dataset": {"format": "Alpaka"}},
            'FILE: dataset.format: write Alpaca, Chat, PromptCompletion, Text, InputTarget or Preference, not "Alpaka"',
            id="none of several words",
        ),
        pytest.param(
            {"dataset": {"mixture": [{"path": "/a", "formt": "Chat"}]}},
            "FILE: dataset.mixture.0.format is missing: add it; dataset.mixture.0: unknown field formt: did you mean "
            "format?",
            id="in a list",
        ),
        pytest.param(
            {"method": {"lora": {"targetModules": []}}},
            "FILE: method.lora.targetModules: write a list of 1 or more, not []",
            id="an empty list",
        ),
        pytest.param(
            {"method": {"lora": 3}}, "FILE: method.lora: write an object, { … }, not 3", id="a number for an object"
        ),
    ],
)
def test_a_wrong_field_is_told_with_what_to_write(refusal: Check, overrides: dict[str, Any], want: str) -> None:
    assert refusal(**overrides) == want


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(
            "a: b\n",
            "FILE: the file is not valid JSON (expected value at line 1 column 1): write one JSON object (YAML is not "
            "read)",
            id="YAML",
        ),
        pytest.param("[]", "FILE: the file: write an object, { … }, not []", id="a list"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, content: str, want: str) -> None:
    assert refused(tmp_path, content) == want


def test_the_sample_in_the_docs_runs(tiny_model: Path, tmp_path: Path) -> None:
    page = (REPO / "docs" / "reference" / "trainer.md").read_text()
    sample = json.loads(page.split("```json")[1].split("```")[0])
    made = make_job(tmp_path, tiny_model).config
    for part, name in (("model", "path"), ("dataset", "path"), ("directories", "work"), ("directories", "artifact")):
        sample[part][name] = made[part][name]
    Job(tmp_path, sample).must("prepare")


def test_a_signal_waits_until_the_rules_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    def holds(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        held.append(True)
        return True

    held: list[bool] = []
    monkeypatch.setattr(rules, "_holds", holds)
    config = TrainerConfig.model_validate(make_job(tmp_path, tmp_path / "model").config)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped):
            rules.violations(config)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(held) > 20
