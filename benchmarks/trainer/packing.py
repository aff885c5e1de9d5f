"""Packed rows against padded ones: `python -m benchmarks.trainer.packing`.

Two runs train the same model on the same records in the same order, one with `packing: true`. They take turns step by
step; only the tokens of the records count, and the losses have to be the same.

The lengths are those of instruction tuning on FLAN: prompts of 356 and answers of 31 tokens on average (Flan V2 in
Wang et al. 2023, arXiv:2306.04751, table 1), cut at 1024 and 256 as in Wei et al. 2022 (arXiv:2109.01652, section 2.4).
Around the means they are log-normal with sigma 1: many short records and a long tail, for which Kundu et al. 2024
(arXiv:2407.09105) report twice the throughput. No paper gives sigma; it is our choice.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.trainer import setting
from benchmarks.trainer.turns import WARM_UP, Turns
from tunewright_trainer.recipe import Recipe
from tunewright_trainer.steps import StepRecord

BAR = 2.0
SAME_LOSS = 1e-4
"""Relative; packed and padded rows add up the same numbers in another order."""

PROMPT, ANSWER, SIGMA = (356, 1024), (31, 256), 1.0
"""(mean before the cut, longest) in tokens."""

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")


def write_records(path: Path, records: int) -> None:
    """Records of words that are mostly one token each."""
    draw = random.Random(0)

    def text(mean: int, longest: int) -> str:
        length = draw.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)
        return " ".join(draw.choices(WORDS, k=max(1, min(longest, round(length)))))

    rows = ({"prompt": text(*PROMPT), "completion": text(*ANSWER)} for _ in range(records))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def build(root: Path, model: Path, records: Path, *, packing: bool, steps: int, micro_batch: int) -> Recipe:
    """One of the two runs."""
    hyperparameters = {
        "maxSteps": steps,
        "microBatchSize": micro_batch,
        "sequenceLength": PROMPT[1] + ANSWER[1] + 64,  # room for the template, so that nothing is truncated
        "packing": packing,
        "learningRate": 1e-4,
    }
    dataset = {"path": str(records), "format": "PromptCompletion", "validationPercent": 1}
    root.mkdir()
    return setting.recipe(root, model, hyperparameters=hyperparameters, dataset=dataset)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=16)
    options = parser.parse_args()
    turns = Turns(2)
    told: list[list[StepRecord]] = [[], []]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        model = setting.model(root, "smollm")
        steps = options.steps + WARM_UP
        write_records(root / "records.jsonl", steps * options.micro_batch * 2)
        runs = []
        for side, packing in enumerate((False, True)):
            recipe = build(
                root / str(packing),
                model,
                root / "records.jsonl",
                packing=packing,
                steps=steps,
                micro_batch=options.micro_batch,
            )
            recipe.hooks.step += [told[side].append, turns.hook(side)]
            runs.append(recipe)
        rows = [run.source.batch(run.share.positions(WARM_UP)[0]).labels.shape for run in runs]
        turns.run(*(run.train for run in runs))
    apart = max(abs(a.loss - b.loss) / a.loss for a, b in zip(*told, strict=True))
    padded, packed = (turns.speed(side, [record.tokens for record in records]) for side, records in enumerate(told))
    tokens = statistics.mean(record.tokens / record.samples for record in told[0])
    print(f"smollm, fp32, {options.micro_batch} records per step, {options.steps} steps; {setting.machine()}")
    print(f"a record has {tokens:.0f} tokens; e.g. {tuple(rows[0])} padded become {tuple(rows[1])}")
    print("loss padded, packed: " + "; ".join(f"{a.loss:.5f}, {b.loss:.5f}" for a, b in zip(*told, strict=True)))
    print(f"the losses differ by at most {apart:.1e} (relative, bar {SAME_LOSS})")
    print(f"padded {padded:.0f}, packed {packed:.0f} tokens/s")
    print(f"packing against padding: {packed / padded:.2f} times the tokens per second (bar {BAR})")
    sys.exit(packed / padded < BAR or apart > SAME_LOSS)


if __name__ == "__main__":
    main()
