"""Our step against a bare hand-written PyTorch loop: `python -m benchmarks.trainer.step [--model tiny]`.

Both train the same model on the same batches in the same process. They take turns step by step, so that whatever else
the machine does slows both. Ours reads, counts, agrees, guards and records; the bare loop has its batches ready.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.trainer import setting
from tunewright_trainer.loader import to_device
from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.steps import StepRecord

BAR = 0.95
WARM_UP = 3


class BareLoop:
    """What one would write by hand, run once after each of our steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = recipe.processes.device
        self.model = copy.deepcopy(recipe.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3, fused=True)
        self.ours: list[float] = []
        self.bare: list[float] = []
        self._left = time.perf_counter()

    def take_turn(self, record: StepRecord) -> None:
        """Our step ended; now the same batch by hand."""
        self._finish()
        self.ours.append(time.perf_counter() - self._left)
        (positions,) = self.recipe.share.positions(record.step - 1)
        batch = to_device(self.recipe.source.batch(positions), self.device)
        started = time.perf_counter()
        self._step(batch)
        self._finish()
        self._left = time.perf_counter()
        self.bare.append(self._left - started)

    def _step(self, batch: Batch) -> None:
        logits = self.model(**batch.inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch.labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = setting.parser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--micro-batch", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        hyperparameters = {"maxSteps": options.steps + WARM_UP, "microBatchSize": options.micro_batch}
        recipe = setting.recipe(root, setting.model(root, options.model), hyperparameters=hyperparameters)
        loop = BareLoop(recipe)
        recipe.hooks.step.append(loop.take_turn)
        recipe.train()
    ours, bare = statistics.median(loop.ours[WARM_UP:]), statistics.median(loop.bare[WARM_UP:])
    print(f"{options.model}, fp32, {options.micro_batch} records per step, {options.steps} steps; {setting.machine()}")
    print(f"bare loop {bare:.3f} s, ours {ours:.3f} s per step (medians)")
    print(f"speed against a bare loop: {bare / ours:.3f} (bar {BAR})")
    sys.exit(bare / ours < BAR)


if __name__ == "__main__":
    main()
