"""check-data: read all that prepare reads, say what the dataset is like, and keep nothing."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_api.dataset import BadRowPolicy
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data.account import Account, Fate
from tunewright_trainer.data.build import Built, WrongRowsError, build_dataset
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.records import Problem
from tunewright_trainer.data.rows import RowRule
from tunewright_trainer.data.statistics import describe
from tunewright_trainer.errors import StageError, classify
from tunewright_trainer.layout import Layout
from tunewright_trainer.stages.prepare import check_model, write_other_inputs

_BAR = 40


@dataclass(frozen=True)
class Findings:
    """What the data is like, for people, and what prepare would end with."""

    text: str
    code: ExitCode


def run(config: TrainerConfig) -> Findings:
    """Read everything. The base model must be on this machine.

    Raises:
        StageError: What hinders prepare before it comes to the rows: INPUT_NOT_READABLE, INVALID_CONFIG; INVALID_DATA
            for an empty or damaged file.
    """
    h = config.hyperparameters
    layout = Layout(config)
    if not config.model.path and not layout.base_model.is_dir():
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"{config.model.uri} is not on this machine: download it, and write its directory into model.path",
        )
    encoder = check_model(config, layout)
    with tempfile.TemporaryDirectory(prefix="tunewright-check-") as scratch:
        directory = Path(scratch) / "dataset"
        directory.mkdir()
        sources = locate(config.dataset, Path(scratch) / "source")
        try:
            built = build_dataset(
                config.dataset,
                sources,
                encoder,
                directory,
                sequence_length=h.sequence_length,
                seed=h.seed,
                strict=False,
            )
        except WrongRowsError as error:
            lines = ["too few right rows are left to train on and to hold out", *_wrong(error.problems, error.wrong)]
            return Findings("\n".join(lines), ExitCode.INVALID_DATA)
        report = describe(directory, built, encoder, h.seed)
        text = render(config, built, report["tokens"], report["lengths"])
        if built.wrong and config.dataset.on_bad_row is BadRowPolicy.FAIL:
            return Findings(text, ExitCode.INVALID_DATA)
        try:
            write_other_inputs(config, layout, encoder, directory)
        except (StageError, OSError) as error:
            refusal = classify(error, outputs=[])
            return Findings(f"{text}\nprepare will refuse this: {refusal.message}", refusal.code)
    return Findings(text, ExitCode.OK)


def render(config: TrainerConfig, built: Built, tokens: dict[str, Any], lengths: dict[str, int]) -> str:
    """Counts of rows, a histogram of lengths, and the first copies, leaks and wrong rows."""
    account, most = built.account, max(lengths.values())
    divided = account.counts[Fate.FIXED, RowRule.SPLIT]
    lines = [_rows(account)]
    if len(built.accounts) > 1:
        parts = zip(config.dataset.sources, built.accounts, strict=True)
        lines += [f"  {part.path} ({part.format.value}): {_rows(of_part)}" for part, of_part in parts]
    lines += [
        f"{account.counts[Fate.FIXED, RowRule.TRUNCATED]} cut to sequenceLength "
        f"({config.hyperparameters.sequence_length} tokens)"
        + (f", {divided} divided into {account.pieces} pieces" if divided else ""),
        f"{built.duplicates} repeat an earlier row{_such_as(built.copies, built.duplicates)}",
        f"{built.shared_prompts} held out whose prompt is trained on too{_such_as(built.leaks, built.shared_prompts)}",
        f"tokens per record: {tokens['shortest']} to {tokens['longest']}, median {tokens['median']:g}, 95% up to "
        f"{tokens['p95']:g}; {tokens['all']} in all",
        *(f"  {name:>15} {count:>9} {'#' * round(_BAR * count / most)}".rstrip() for name, count in lengths.items()),
        *_wrong(built.problems, built.wrong),
    ]
    if built.wrong:
        fails = config.dataset.on_bad_row is BadRowPolicy.FAIL
        lines.append(
            "prepare will refuse this: correct the rows, or set dataset.onBadRow: Quarantine to leave them out"
            if fails
            else "prepare will leave the wrong rows out (dataset.onBadRow: Quarantine)"
        )
    return "\n".join(lines)


def _rows(account: Account) -> str:
    return (
        f"{account.read} rows: {account.train} to train on, {account.held_out} held out, "
        f"{account.total(Fate.DROPPED)} dropped, {account.total(Fate.QUARANTINED)} wrong"
    )


def _such_as(places: list[str], count: int) -> str:
    more = ", …" if count > len(places) else ""
    return f" ({', '.join(places)}{more})" if places else ""


def _wrong(problems: list[tuple[str, Problem]], count: int) -> Iterator[str]:
    if problems:
        yield f"{count} wrong rows" + (f", the first {len(problems)} of them:" if count > len(problems) else ":")
    for name, problem in problems:
        yield f"  {name}: line {problem.line}: {problem.reason}"
