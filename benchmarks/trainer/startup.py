"""From the start of `tunewright-trainer train` to its first step: `python -m benchmarks.trainer.startup`.

The real command in processes of its own, with the model on disk and prepared records, as in a pod. The parts are those
that a run tells in its log and in `tunewright_train_startup_seconds`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.trainer import setting
from tests.trainer.support import Job, make_job, real_model, write_tiny_model


def parts(job: Job) -> dict[str, float]:
    """Seconds of each part of one run of the job; it is then as it was before."""
    finished = job.run("train")
    assert finished.code == 0, finished.describe()
    (job.work / "train.json").unlink(missing_ok=True)
    lines = [json.loads(line) for line in finished.output.splitlines() if line.startswith("{")]
    told = next(line for line in lines if line["message"] == "first step")
    names = list(told)[list(told).index("startupSeconds") :]
    return {name: told[name] for name in names}


def main() -> None:
    """Measure and print."""
    parser = setting.parser(__doc__)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        model = real_model() if options.model == "smollm" else write_tiny_model(root / "tiny")
        told = []
        for run in range(options.runs + 1):
            job = make_job(root / str(run), model, method={options.method: {}}, hyperparameters={"maxSteps": 1})
            job.must("prepare")
            told.append(parts(job))
    # The first run brought code and model into the page cache.
    median = {name: statistics.median(run[name] for run in told[1:]) for name in told[0]}
    total = median.pop("startupSeconds")
    print(f"{options.model}, {options.method}, fp32, 1 process, medians of {options.runs} runs; {setting.machine()}")
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in median.items()))
    print(f"start of the process to the first step: {total:.2f} s (no bar)")
    sys.exit(0)


if __name__ == "__main__":
    main()
