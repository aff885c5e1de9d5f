"""Each objective in two processes against one: the same losses, and figures of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.objective_run import FULL, codes, colours, pairs, prepare, run
from tests.trainer.support import REPO, Job, free_port, make_job, write_tiny_model

ZERO_2: dict[str, Any] = {"deepspeed": {"zeroStage": 2}}
ZERO_3: dict[str, Any] = {"deepspeed": {"zeroStage": 3}}
CASES = {
    "dpo, ZeRO-3": ("dpo", ZERO_3),
    "dpo, FSDP2": ("dpo", {"fsdp": {}}),
    "distillation and contrastive, ZeRO-3": ("distillation", ZERO_3),
    "distillation and contrastive, FSDP2": ("distillation", {"fsdp": {}}),
    "ewc, DDP": ("ewc", {"ddp": {}}),
    "ewc, ZeRO-2": ("ewc", ZERO_2),
}

Steps = list[dict[str, float]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[dict[str, Steps], dict[str, Steps]]:
    """(by one process, by two), by objective and by case: loss and figures of each step."""
    root = tmp_path_factory.mktemp("shared")
    data = {
        "reference": codes(root / "reference.jsonl", 5),
        "teacher": str(write_tiny_model(root / "teacher", norm=3.0)),
        "pairs": pairs(root / "pairs.jsonl"),
        "colours": colours(root / "colours.jsonl"),
    }
    alone, shared = {}, []
    for name in ("dpo", "distillation", "ewc"):
        one = run(objective_job(root / name, tiny_model, name, data))
        alone[name] = [{"loss": step.loss, **step.figures} for step in one.steps]
    for case, (name, distributed) in CASES.items():
        job = objective_job(root / case, tiny_model, name, data)
        job.config["rendezvous"]["processesPerNode"] = 2
        job.config["hyperparameters"]["microBatchSize"] = 2
        job.config["distributed"] = distributed
        prepare(job)
        shared.append(job)
    return alone, two_processes(root / "found.json", shared)


def objective_job(root: Path, model: Path, name: str, data: dict[str, str]) -> Job:
    """Four steps of four records."""
    ewc = {"lambda": 30000, "reference": {"uri": "pvc://a/reference.jsonl", "format": "Alpaca"}}
    distillation = {"teacher": {"uri": "pvc://a/teacher"}}
    objective, inputs, dataset = {
        "dpo": ({"dpo": {"beta": 0.5}}, {}, {"path": data["pairs"], "format": "Preference"}),
        "distillation": (
            {"supervised": {"distillation": distillation, "contrastive": {"margin": 0.9}}},
            {"teacher": data["teacher"]},
            {"path": data["colours"]},
        ),
        "ewc": ({"supervised": {"ewc": ewc}}, {"reference": data["reference"]}, {"path": data["colours"]}),
    }[name]
    hyperparameters = {"maxSteps": 4, "learningRate": 3e-3, "microBatchSize": 4}
    made = make_job(root, model, method=FULL, hyperparameters=hyperparameters, dataset=dataset)
    made.config |= {"objective": objective, "objectiveInputs": inputs}
    return made


def two_processes(out: Path, jobs: list[Job]) -> dict[str, Steps]:
    """Train the jobs, one after the other, in the same two processes."""
    for job in jobs:
        (job.root / "config.json").write_text(json.dumps(job.config))
    script = [str(REPO / "tests" / "trainer" / "objective_run.py"), str(out)]
    common = {
        **os.environ,
        "PYTHONPATH": f"{REPO}:{REPO / 'crds'}:{REPO / 'trainer_image'}",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    started = [
        subprocess.Popen(
            [sys.executable, *script, *(str(job.root / "config.json") for job in jobs)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate()[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs[0][-3000:]
    result: dict[str, Steps] = json.loads(out.read_text())
    return result


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_computes(found: tuple[dict[str, Steps], dict[str, Steps]], case: str) -> None:
    alone, shared = found
    name, _ = CASES[case]
    assert len(shared[case]) == 4
    assert set(shared[case][0]) > {"loss"}, "the objective's figures are compared, too"
    for one, two in zip(alone[name], shared[case], strict=True):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
