"""check-data: read the whole dataset as prepare does, say what it is like, and keep nothing."""

import tempfile
from pathlib import Path

from tunewright_api.dataset import BadRowPolicy, DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data.account import Fate
from tunewright_trainer.data.build import Built, build_dataset
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.statistics import describe
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.errors import StageError
from tunewright_trainer.layout import Layout

_BAR = 40


def run(config: TrainerConfig) -> str:
    """The findings as text. The base model must be on this machine.

    Raises:
        StageError: INVALID_DATA with the first 20 wrong rows, where onBadRow says Fail; INPUT_NOT_READABLE,
            INVALID_CONFIG.
    """
    h = config.hyperparameters
    with tempfile.TemporaryDirectory(prefix="tunewright-check-") as scratch:
        directory = Path(scratch) / "dataset"
        directory.mkdir()
        sources = locate(config.dataset, Path(scratch) / "source")
        encoder = load_encoder(Layout(config).base_model)
        encoder.check(chat=any(part.format is not DatasetFormat.TEXT for part in config.dataset.sources))
        built = build_dataset(
            config.dataset,
            sources,
            encoder,
            directory,
            sequence_length=h.sequence_length,
            seed=h.seed,
            strict=False,
        )
        report = describe(directory, built, encoder, h.seed)
    text = render(built, report["lengths"])
    if built.wrong and config.dataset.on_bad_row is BadRowPolicy.FAIL:
        raise StageError(ExitCode.INVALID_DATA, f"{built.wrong} rows are wrong: correct them\n{text}")
    return text


def render(built: Built, lengths: dict[str, int]) -> str:
    """Counts, a histogram of lengths, and the first wrong rows."""
    account = built.account
    most = max(lengths.values())
    lines = [
        f"{account.read} rows: {account.train} to train on, {account.held_out} held out, "
        f"{account.total(Fate.DROPPED)} dropped, {account.total(Fate.QUARANTINED)} wrong",
        f"{account.total(Fate.FIXED)} cut to sequenceLength, {built.duplicates} repeat an earlier row, "
        f"{built.shared_prompts} held-out records have a prompt that is trained on too",
        "tokens per record:",
        *(f"  {name:>15} {count:>9} {'#' * round(_BAR * count / most)}" for name, count in lengths.items()),
    ]
    if built.problems:
        lines.append(f"the first {len(built.problems)} of {built.wrong} wrong rows:")
        lines += [f"  {name}: line {problem.line}: {problem.reason}" for name, problem in built.problems]
    return "\n".join(lines)
