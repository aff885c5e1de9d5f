"""What training waits for: `python -m benchmarks.trainer.stall [--model tiny]`.

The stall of a checkpoint that is written while training goes on, as part of one that is waited for; and the part of
the steps spent waiting for data while every record is rendered and tokenised on the fly.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.trainer import setting
from tunewright_trainer.data import store
from tunewright_trainer.data.ordered import OrderedRecords
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.steps import StepRecord

STALL_BAR, WAIT_BAR = 0.10, 0.01


class TokenisedOnTheFly:
    """The records of a run, rendered and tokenised again whenever they are read."""

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.source, OrderedRecords)
        self.source = recipe.source
        self.encoder = load_encoder(recipe.layout.base_model)

    def batch(self, positions: range) -> Batch:
        """The same batch as that of the prepared records."""
        chosen = [self.source.records[self.source.order[position]] for position in positions]
        encoded = [self.encoder.encode(record.messages, 1024) for record in chosen]
        again = [store.prepared(r.line, r.messages, e) for r, e in zip(chosen, encoded, strict=True)]
        return OrderedRecords(again, range(len(again))).batch(range(len(again)))


class Watch:
    """Every record of the run; after each save that training did not wait for, nothing is left to write."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.records: list[StepRecord] = []
        self.synchronous: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        """Keep the record; half-way between two saves measure one that is waited for."""
        self.records.append(record)
        every = self.recipe.config.checkpoint.every_steps
        if record.step % every == every // 2:
            checkpoints = self.recipe.checkpoints
            checkpoints.wait()
            started = time.perf_counter()
            checkpoints.save(record.step, self.recipe.strategy.state())
            checkpoints.wait()
            self.synchronous.append(time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = setting.parser(__doc__)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--every", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        recipe = setting.recipe(
            root,
            setting.model(root, options.model),
            hyperparameters={"maxSteps": options.saves * options.every + 1, "microBatchSize": 8},
            checkpoint={"everySteps": options.every},
        )
        recipe.source = TokenisedOnTheFly(recipe)
        watch = Watch(recipe)
        recipe.hooks.step.append(watch.on_step)
        recipe.train()
        size = sum(file.stat().st_size for file in recipe.layout.checkpoints.glob("step-*/*")) / 2
    stalls = [record.checkpoint_stall_seconds for record in watch.records if record.checkpoint_stall_seconds]
    stall, whole = statistics.median(stalls), statistics.median(watch.synchronous)
    # The first step waits for the thread that has just begun.
    seconds = sum(record.seconds for record in watch.records[1:]) - sum(watch.synchronous) - sum(stalls)
    waited = sum(record.data_wait_seconds for record in watch.records[1:])
    print(f"{options.model}, fp32, checkpoints of {size / 1e6:.0f} MB; {setting.machine()}")
    print(f"a save stalls training {stall:.3f} s and takes {whole:.3f} s (medians of {len(stalls)})")
    print(f"stall of a checkpoint: {stall / whole:.3f} of a synchronous save (bar {STALL_BAR})")
    print(f"data wait: {waited / seconds:.4f} of the step time, tokenising on the fly (bar {WAIT_BAR})")
    sys.exit(stall / whole > STALL_BAR or waited / seconds > WAIT_BAR)


if __name__ == "__main__":
    main()
