"""Our trainer against TRL's SFTTrainer: `python -m benchmarks.trainer.trl`.

Both train the same model on the same records, whose tokens they are given, in the same order, and take turns step by
step. SFTTrainer runs with its defaults but for what makes the work the same: FP32 and no recomputed activations (by
default it computes in bf16 and recomputes, which is slower on this device and a third more work), our learning rate,
and the records in their order. Only the tokens of the records count, and the losses have to agree.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import transformers
import trl

from benchmarks.trainer import setting
from benchmarks.trainer.turns import WARM_UP, Turns
from tunewright_trainer.batches import labels
from tunewright_trainer.data.ordered import OrderedRecords
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.steps import StepRecord

BAR = 1.0
SAME_LOSS = 1e-3
"""Relative; the mean over the steps between two lines of SFTTrainer's log."""


class EndOfStep(transformers.TrainerCallback):  # type: ignore[misc]
    """Gives the turn away when SFTTrainer's step has ended."""

    def __init__(self, turns: Turns, side: int) -> None:
        self.turns, self.side = turns, side

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the optimizer's step."""
        self.turns.end_step(self.side)


def build_theirs(root: Path, model: Path, ours: Recipe, micro_batch: int) -> trl.SFTTrainer:
    """SFTTrainer on the records of our run, in the order of our run."""
    h = ours.config.hyperparameters
    steps = ours.plan.total_steps
    source = ours.source
    assert isinstance(source, OrderedRecords)
    chosen = [source.records[source.order[position]] for position in range(steps * micro_batch)]
    rows = {"input_ids": [record.ids for record in chosen], "labels": [labels(record) for record in chosen]}
    return trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=trl.SFTConfig(
            output_dir=str(root),
            per_device_train_batch_size=micro_batch,
            max_steps=steps,
            learning_rate=h.learning_rate,
            bf16=False,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    )


def apart(ours: list[StepRecord], logged: list[dict[str, float]]) -> tuple[list[tuple[float, float]], float]:
    """The (mean) losses of both between two lines of SFTTrainer's log, and how far they are apart at most, relative."""
    pairs, last = [], 0
    for line in logged:
        if "loss" in line:
            step = int(line["step"])
            pairs.append((statistics.mean(record.loss for record in ours[last:step]), line["loss"]))
            last = step
    return pairs, max(abs(a - b) / a for a, b in pairs)


def main() -> None:
    """Measure and print."""
    parser = setting.parser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--micro-batch", type=int, default=8)
    options = parser.parse_args()
    turns, told = Turns(2), list[StepRecord]()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        model = setting.model(root, options.model)
        hyperparameters = {
            "maxSteps": options.steps,
            "microBatchSize": options.micro_batch,
            "learningRate": 1e-4,
            "scheduler": "Linear",
            "warmupRatio": 0,
        }
        ours = setting.recipe(root, model, hyperparameters=hyperparameters)
        ours.hooks.step += [told.append, turns.hook(0)]
        theirs = build_theirs(root / "trl", model, ours, options.micro_batch)
        theirs.add_callback(EndOfStep(turns, 1))
        turns.run(ours.train, theirs.train)
    losses, difference = apart(told, theirs.state.log_history)
    # Both train on the same records.
    counts = [record.tokens for record in told]
    tokens = statistics.median(counts[WARM_UP:])
    speed, other = turns.speed(0, counts), turns.speed(1, counts)
    print(
        f"{options.model}, fp32, {options.micro_batch} records ({tokens:.0f} tokens) per step, {options.steps} steps; "
        f"TRL {trl.__version__}, {setting.machine()}"
    )
    print("mean losses ours, SFTTrainer: " + "; ".join(f"{a:.5f}, {b:.5f}" for a, b in losses))
    print(f"the losses differ by at most {difference:.1e} (relative, bar {SAME_LOSS})")
    print(f"ours {speed:.0f}, SFTTrainer {other:.0f} tokens/s")
    print(f"tokens per second against SFTTrainer: {speed / other:.3f} (bar {BAR})")
    sys.exit(speed / other < BAR or difference > SAME_LOSS)


if __name__ == "__main__":
    main()
