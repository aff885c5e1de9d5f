"""Every way to share a step computes the same loss curve: SmolLM2 cut to 4 layers, fp32, the same global batch.

With TUNEWRIGHT_WRITE_EQUIVALENCE=1 the differences are written to docs/reference/equivalence.md.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.cut_model import cut_model
from tests.trainer.support import REPO, Job, make_job

PATIENCE = 1200
"""Seconds for a run on a machine that has other things to do, too."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE)]

WRITE_ENV = "TUNEWRIGHT_WRITE_EQUIVALENCE"
TABLE = REPO / "docs" / "reference" / "equivalence.md"
STEPS = 20
GLOBAL_BATCH = 4
SAME = 1e-3
RESUMED = 1e-5
KILLED_AT = 11


@dataclass(frozen=True)
class Case:
    """One way to share a step of GLOBAL_BATCH records: processes, how they work together, micro batches."""

    name: str
    processes: int = 1
    accumulation: int = 1
    distributed: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    replicas: int | None = None
    """Processes that read different records; all of them if absent."""

    def job(self, root: Path, model: Path, **overrides: Any) -> Job:
        """The run, with 20 steps that differ in nothing but the sharing."""
        replicas = self.replicas or self.processes
        job = make_job(
            root,
            model,
            method={"full": {}},
            hyperparameters={
                "maxSteps": STEPS,
                "microBatchSize": GLOBAL_BATCH // replicas // self.accumulation,
                "gradientAccumulationSteps": self.accumulation,
                "precision": "FP32",
                "learningRate": 1e-4,
                "sequenceLength": 128,
                **self.hyperparameters,
            },
            **({"distributed": self.distributed} if self.distributed else {}),
            **overrides,
        )
        job.config["rendezvous"]["processesPerNode"] = self.processes
        return job


ONE = Case("one process")
NVME = {"zeroStage": 3, "offloadOptimizer": "NVMe", "offloadParameters": "NVMe", "nvme": {"size": "2Gi"}}
ON_DISK = Case("ZeRO-3 x2, offloaded to NVMe", 2, distributed={"deepspeed": NVME})
CASES = [
    Case("DDP x2", 2, distributed={"ddp": {}}),
    Case("ZeRO-1 x2", 2, distributed={"deepspeed": {"zeroStage": 1}}),
    Case("ZeRO-2 x2", 2, distributed={"deepspeed": {"zeroStage": 2}}),
    Case("ZeRO-3 x2", 2, distributed={"deepspeed": {"zeroStage": 3}}),
    Case("gradient accumulation x4", accumulation=4),
    Case("DDP x2 with gradient accumulation x2", 2, accumulation=2, distributed={"ddp": {}}),
    Case("packing", hyperparameters={"packing": True}),
    Case("ZeRO-2 x2, offloaded to CPU", 2, distributed={"deepspeed": {"zeroStage": 2, "offloadOptimizer": "CPU"}}),
    Case(
        "ZeRO-3 x2, offloaded to CPU",
        2,
        distributed={"deepspeed": {"zeroStage": 3, "offloadOptimizer": "CPU", "offloadParameters": "CPU"}},
    ),
    ON_DISK,
    Case("FSDP2 x2", 2, distributed={"fsdp": {}}),
    Case("pipeline x2", 2, accumulation=4, distributed={"pipeline": {"stages": 2}}, replicas=1),
    Case("pipeline x2 with data x2", 4, accumulation=2, distributed={"pipeline": {"stages": 2}}, replicas=2),
]
# One of each kind; `make test-exhaustive` runs the others, too.
USUAL = {
    "DDP x2",
    "ZeRO-3 x2, offloaded to CPU",
    "FSDP2 x2",
    "pipeline x2 with data x2",
    "packing",
    ONE.name,
    ON_DISK.name,
}
KILLED = [ONE, Case("ZeRO-2 x2", 2, distributed={"deepspeed": {"zeroStage": 2}}), ON_DISK]


def cases(known: list[Case]) -> list[Any]:
    """Parameters of a test, of which only the usual ones run each time."""
    return [pytest.param(c, id=c.name, marks=[] if c.name in USUAL else pytest.mark.exhaustive) for c in known]


class Lab:
    """What the cases share: model, prepared records, the curve of one process, the rows of the table."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.rows: dict[str, str] = {}
        prepared = ONE.job(root / "prepared", model)
        prepared.must("prepare")
        self._dataset = prepared.work / "dataset"

    def job(self, case: Case, name: str, **overrides: Any) -> Job:
        """A run on the prepared records."""
        job = case.job(self.root / name, self.model, **overrides)
        shutil.copytree(self._dataset, job.work / "dataset")
        return job

    @cached_property
    def reference(self) -> dict[int, float]:
        """The curve of one process."""
        return curve(self.job(ONE, "reference"))

    def compare(self, name: str, got: dict[int, float], want: dict[int, float], allowed: float) -> None:
        """Check the largest relative difference over the steps of `got`, and note it."""
        difference = max(abs(loss - want[step]) / want[step] for step, loss in got.items())
        assert difference < allowed
        self.rows[name] = f"| {name} | {difference:.1e} | {allowed:.0e} |"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, smollm: Path) -> Iterator[Lab]:
    """The cases' common ground; writes the table at the end when that is asked for."""
    lab = Lab(tmp_path_factory.mktemp("equivalence"), cut_model(smollm))
    yield lab
    if os.environ.get(WRITE_ENV) == "1":
        TABLE.write_text(as_markdown(known_rows() | lab.rows))


def curve(job: Job) -> dict[int, float]:
    """Train to the end: the loss by step."""
    finished = job.start("train").finish(PATIENCE)
    assert finished.code == 0, finished.describe()
    return finished.losses()


@pytest.mark.parametrize("case", cases(CASES))
def test_the_curve_is_that_of_one_process(case: Case, lab: Lab) -> None:
    losses = curve(lab.job(case, case.name))
    assert list(losses) == list(lab.reference) == list(range(1, STEPS + 1))
    assert losses[STEPS] < losses[1]
    lab.compare(case.name, losses, lab.reference, SAME)


@pytest.mark.parametrize("case", cases(KILLED))
def test_a_run_that_is_killed_goes_on_with_the_same_curve(case: Case, lab: Lab) -> None:
    want = lab.reference if case is ONE else curve(lab.job(case, f"{case.name} whole"))
    job = lab.job(case, f"{case.name} killed", checkpoint={"everySteps": 5})
    pod = job.start("train")
    pod.wait_for(
        lambda: reached(job) >= KILLED_AT and (job.work / "checkpoints" / "step-10").is_dir(), timeout=PATIENCE
    )
    pod.kill()
    pod.process.wait()
    losses = curve(job)
    assert min(losses) in {11, 16}
    assert max(losses) == STEPS
    lab.compare(f"{case.name}, killed at step {KILLED_AT} and resumed", losses, want, RESUMED)


def test_the_page_has_every_case() -> None:
    killed = [f"{case.name}, killed at step {KILLED_AT} and resumed" for case in KILLED]
    assert set(known_rows()) == {*(case.name for case in CASES), *killed}


def reached(job: Job) -> int:
    """Steps done, as /progress says."""
    try:
        return int(job.progress()["step"])
    except OSError:
        return 0


def known_rows() -> dict[str, str]:
    """The rows of the table as it is, by name: a run of some cases replaces theirs."""
    lines = TABLE.read_text().splitlines() if TABLE.is_file() else []
    return {
        line.split(" | ")[0].removeprefix("| "): line
        for line in lines
        if line.count(" | ") == 2 and not line.startswith("| run |")
    }


def as_markdown(rows: dict[str, str]) -> str:
    """docs/reference/equivalence.md."""
    lines = [
        "# Equal loss curves",
        "",
        f"Largest relative difference of the training loss, over {STEPS} optimizer steps, from the same run in one "
        "process;",
        "for a resumed run from the same run without interruption. SmolLM2-135M-Instruct cut to 4 layers, fp32, AdamW,",
        f"{GLOBAL_BATCH} records per step. Made by `{WRITE_ENV}=1 pytest tests/trainer/test_equivalence.py`.",
        "",
        "| run | difference | allowed |",
        "|---|---|---|",
        *rows.values(),
    ]
    return "\n".join(lines) + "\n"
