"""The user's files -> the prepared records of a run, row by row, and an account of every row.

What is held in memory while rows are read is 32 bytes per row (hashes, to find duplicates and leaks, the number of its
pieces and of its answers that do not count), whatever the size of the files.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright_api.artifact import sha256_file
from tunewright_api.dataset import BadRowPolicy, DatasetFormat, DuplicatePolicy, LongRecordPolicy
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import DatasetInput, MixtureInput
from tunewright_trainer.data import store
from tunewright_trainer.data.account import Account, Fate, Note, RowLog
from tunewright_trainer.data.chat import TemplateRenderError
from tunewright_trainer.data.formats import Example
from tunewright_trainer.data.records import Problem, Record, invalid_data, iterate_records, no_records
from tunewright_trainer.data.rows import RowRule
from tunewright_trainer.data.split import hold_out
from tunewright_trainer.data.store import Answer, PreparedRecord
from tunewright_trainer.data.tokens import ChatEncoder, Encoded, divide
from tunewright_trainer.errors import StageError

TRAIN, VALIDATION, ROWS, ACCOUNT = "train.npy", "validation.npy", "rows.jsonl", "account.json"
_MAX_PROBLEMS, _MAX_PLACES = 20, 5
_NOT_LEARNT = "{} earlier answers are read and not learnt, because the chat template rewrites them"


@dataclass(frozen=True)
class Source:
    """A part of the data, on this machine: its files as the user calls them, and where they are."""

    given: MixtureInput
    files: list[tuple[str, Path]]


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        accounts: Of each source.
        notes: The first rows that are not unchanged.
        duplicates: Rows that repeat an earlier one.
        copies: Where the first of them are.
        shared_prompts: Held-out rows whose prompt is trained on too, with another answer.
        leaks: Where the first of them are.
        problems: The first wrong rows, with their file.
        wrong: All wrong rows.
        digest: SHA-256 of the file, or of the names and digests of several.
    """

    accounts: list[Account]
    notes: list[Note]
    duplicates: int
    copies: list[str]
    shared_prompts: int
    leaks: list[str]
    problems: list[tuple[str, Problem]]
    wrong: int
    digest: str

    @property
    def account(self) -> Account:
        """Of all sources."""
        return sum(self.accounts, Account())


class WrongRowsError(StageError):
    """INVALID_DATA because of the rows.

    Attributes:
        problems: The first wrong rows, with their file.
        wrong: All of them.
    """

    def __init__(self, problems: list[tuple[str, Problem]], wrong: int) -> None:
        (first, _), *_ = problems
        named = [
            # The file is named where it changes.
            problem if name == first else Problem(problem.line, f"of {name}: {problem.reason}", problem.rule)
            for name, problem in problems
        ]
        super().__init__(ExitCode.INVALID_DATA, invalid_data(first, named, wrong).message)
        self.problems, self.wrong = problems, wrong


@dataclass(frozen=True)
class _Checked:
    """A row that is right.

    Attributes:
        record: What it says.
        pieces: Its tokens, one record each; several of a document that is divided.
        rejected: Of a preference pair the prompt with the worse answer.
    """

    record: Record
    pieces: list[Encoded]
    rejected: Encoded | None = None

    @property
    def cut(self) -> bool:
        """Whether it was longer than sequenceLength, and is not divided."""
        return any(part.truncated for part in (*self.pieces, self.rejected) if part)

    @property
    def rewritten(self) -> int:
        """Earlier answers that do not count; those of a pair are the prompt of both."""
        return 0 if self.rejected else self.pieces[0].rewritten


@dataclass
class _Keys:
    """Hashes per row: of all it says, and of its prompt."""

    whole: "array[int]" = field(default_factory=lambda: array("Q"))
    prompt: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, example: Example) -> None:
        self.whole.append(_hash([*_said(example), example.rejected, example.text]))
        self.prompt.append(_hash(_said(example)[:-1]))


def build_dataset(
    dataset: DatasetInput,
    sources: Sequence[Source],
    encoder: ChatEncoder,
    directory: Path,
    *,
    sequence_length: int,
    seed: int,
    strict: bool = True,
) -> Built:
    """Read, check and tokenize every row, and fill `directory`: the records, the split, rows.jsonl, account.json.

    Args:
        dataset: What to do with which rows.
        sources: Where they are.
        encoder: Of the base model.
        directory: Exists and is empty.
        sequence_length: Longest record in tokens.
        seed: Of the split.
        strict: Raise for wrong rows where onBadRow says Fail.

    Raises:
        WrongRowsError: Rows are wrong and `strict` forbids it, or too few others are left.
        StageError: INVALID_DATA for an empty file, or for too few distinct records.
    """
    builder = _Builder(dataset, encoder, sequence_length, Path(directory))
    with RowLog(directory / ROWS) as log:
        with store.Writer(directory) as writer:
            for number, source in enumerate(sources):
                builder.read_source(number, source, writer, log)
        if strict and builder.wrong and dataset.on_bad_row is BadRowPolicy.FAIL:
            raise WrongRowsError(builder.problems, builder.wrong)
        built = builder.finish(sources, log, seed)
    accounts = [
        {"path": source.given.path, "format": source.given.format.value, **account.to_dict()}
        for source, account in zip(sources, built.accounts, strict=True)
    ]
    first = [note.text() for note in built.notes]
    content = {**built.account.to_dict(), "duplicates": built.duplicates, "sources": accounts, "rows": first}
    (directory / ACCOUNT).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return built


class _Builder:
    def __init__(self, dataset: DatasetInput, encoder: ChatEncoder, sequence_length: int, directory: Path) -> None:
        self._dataset, self._encoder, self._length, self._directory = dataset, encoder, sequence_length, directory
        self._keys = _Keys()
        self._pieces = array("L")
        self._rewritten = array("L")
        self._files: list[str] = []
        self._accounts: list[Account] = []
        self.problems: list[tuple[str, Problem]] = []
        self.wrong = 0

    def read_source(self, number: int, source: Source, writer: store.Writer, log: RowLog) -> None:
        account = Account()
        self._accounts.append(account)
        for name, path in source.files:
            self._files.append(name)
            for result in self._results(name, path, source.given.format):
                account.read += 1
                if isinstance(result, Problem):
                    self._set_aside(name, result, account, log)
                    continue
                record, rejected = result.record, result.rejected
                if result.cut and self._dataset.on_long_record is LongRecordPolicy.DROP:
                    reason = f"longer than sequenceLength ({self._length} tokens)"
                    account.counts[Fate.DROPPED, RowRule.TOO_LONG] += 1
                    log.add(Note(name, record.line, Fate.DROPPED, RowRule.TOO_LONG, reason))
                    continue
                self._keys.add(record.example)
                self._pieces.append(len(result.pieces))
                self._rewritten.append(result.rewritten)
                answer = Answer(rejected.ids, rejected.spans) if rejected else None
                for piece in result.pieces:
                    writer.add(
                        PreparedRecord(record.line, record.messages, piece.ids, piece.spans, answer, number),
                        file=len(self._files) - 1,
                        truncated=result.cut,
                    )
        if not account.read:
            raise no_records(source.given.path, source.given.format)

    def finish(self, sources: Sequence[Source], log: RowLog, seed: int) -> Built:
        """Find duplicates, split, and complete the accounts."""
        pieces = np.array(self._pieces, np.int64)
        first = np.cumsum(pieces) - pieces  # record of each row
        index = store.index_of(self._directory)
        source = index["source"][first]
        keys, prompts = np.array(self._keys.whole, np.uint64), np.array(self._keys.prompt, np.uint64)
        repeats = np.ones(len(keys), np.bool_)
        repeats[np.unique(keys, return_index=True)[1]] = False
        dropping = self._dataset.on_duplicate is DuplicatePolicy.DROP
        kept = np.flatnonzero(~repeats) if dropping else np.arange(len(keys))
        distinct = int((~repeats).sum())
        if distinct < 2 and self.problems:
            raise WrongRowsError(self.problems, self.wrong)
        if distinct < 2:
            raise _too_few(sources, len(keys))
        held = hold_out(keys[kept], self._dataset.validation_percent, seed)
        train, validation = kept[~held], kept[held]
        for name, rows in ((TRAIN, train), (VALIDATION, validation)):
            chosen = np.zeros(len(keys), np.bool_)
            chosen[rows] = True
            store.write_subset(self._directory / name, np.flatnonzero(np.repeat(chosen, pieces)))
        for entry in index[first[repeats]] if dropping else ():
            self._explain(log, entry, Fate.DROPPED, RowRule.DUPLICATE, "repeats an earlier row")
        limit = f"sequenceLength ({self._length} tokens)"
        rewritten = np.array(self._rewritten, np.int64)
        cut = index["truncated"][first]
        for row in kept[cut[kept]]:
            also = f"; {_NOT_LEARNT.format(rewritten[row])}" if rewritten[row] else ""
            self._explain(log, index[first[row]], Fate.FIXED, RowRule.TRUNCATED, f"cut to {limit}{also}")
        for row in kept[~cut[kept] & (rewritten[kept] > 0)]:
            reason = _NOT_LEARNT.format(rewritten[row])
            self._explain(log, index[first[row]], Fate.FIXED, RowRule.EARLIER_ANSWERS_NOT_LEARNT, reason)
        for row in kept[pieces[kept] > 1]:
            reason = f"divided into {pieces[row]} pieces of at most {limit}"
            self._explain(log, index[first[row]], Fate.FIXED, RowRule.SPLIT, reason)
            self._accounts[source[row]].pieces += int(pieces[row])
        self._count_sides(sources, source[train], source[validation])
        shared = _shared(prompts, train, validation)
        return Built(
            accounts=self._accounts,
            notes=log.notes,
            duplicates=int(repeats.sum()),
            copies=self._places(index[first[np.flatnonzero(repeats)[:_MAX_PLACES]]]),
            shared_prompts=len(shared),
            leaks=self._places(index[first[shared[:_MAX_PLACES]]]),
            problems=self.problems,
            wrong=self.wrong,
            digest=_digest(sources),
        )

    def _count_sides(self, sources: Sequence[Source], train: NDArray[np.int16], validation: NDArray[np.int16]) -> None:
        """Count the rows to train on and held out, given the source of each."""
        for number, account in enumerate(self._accounts):
            account.train, account.held_out = int((train == number).sum()), int((validation == number).sum())
            if not account.train and self.problems:
                raise WrongRowsError(self.problems, self.wrong)
            if not account.train:
                raise StageError(
                    ExitCode.INVALID_DATA,
                    f"{sources[number].given.path} has no record left to train on ({account.read} rows read): add "
                    "records, or remove it from dataset.mixture",
                )

    def _results(self, name: str, path: Path, dataset_format: DatasetFormat) -> Iterator[Problem | _Checked]:
        for result in iterate_records(path, dataset_format, self._dataset.ignore_fields or (), name):
            yield (
                result
                if isinstance(result, Problem)
                else self._encode(result, self._dataset.long_records(dataset_format))
            )

    def _encode(self, record: Record, on_long: LongRecordPolicy) -> Problem | _Checked:
        divided = on_long is LongRecordPolicy.SPLIT
        encoded = encode_example(record, self._encoder, sys.maxsize if divided else self._length)
        if isinstance(encoded, Problem):
            return encoded
        rejected = None
        if record.example.rejected is not None:
            worse = [*record.messages[:-1], {"role": "assistant", "content": record.example.rejected}]
            other = encode_example(Record(record.line, Example(worse)), self._encoder, self._length)
            if isinstance(other, Problem):
                return other
            rejected = other
        checked = _Checked(record, divide(encoded, self._length) if divided else [encoded], rejected)
        if checked.cut and on_long is LongRecordPolicy.FAIL:
            reason = f"longer than hyperparameters.sequenceLength ({self._length} tokens): raise it or shorten the row"
            return Problem(record.line, reason, RowRule.TOO_LONG)
        dropped = checked.cut and on_long is LongRecordPolicy.DROP
        if rejected and rejected.ids == encoded.ids and not dropped:
            reason = (
                f"cut to hyperparameters.sequenceLength ({self._length} tokens) chosen and rejected are the same, so "
                "there is nothing to prefer: raise it, or shorten the row"
                if checked.cut
                else "rendered with the chat template chosen and rejected are the same, so there is nothing to prefer: "
                "remove the row"
            )
            return Problem(record.line, reason, RowRule.NOTHING_TO_LEARN, record.messages)
        return checked

    def _set_aside(self, name: str, problem: Problem, account: Account, log: RowLog) -> None:
        account.counts[Fate.QUARANTINED, problem.rule] += 1
        self.wrong += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append((name, problem))
        log.add(Note(name, problem.line, Fate.QUARANTINED, problem.rule, problem.reason), problem.row)

    def _places(self, entries: NDArray[Any]) -> list[str]:
        return [f"{self._files[entry['file']]}: line {entry['line']}" for entry in entries]

    def _explain(self, log: RowLog, entry: NDArray[Any], fate: Fate, rule: RowRule, reason: str) -> None:
        self._accounts[entry["source"]].counts[fate, rule] += 1
        log.add(Note(self._files[entry["file"]], int(entry["line"]), fate, rule, reason))


def encode_example(record: Record, encoder: ChatEncoder, sequence_length: int) -> Encoded | Problem:
    """Tokenize a record; one that the template refuses, or whose answer is cut off, is a problem with its line."""
    example = record.example
    try:
        if example.text is not None:
            encoded = encoder.encode_text(example.text, sequence_length)
        else:
            encoded = encoder.encode(example.messages, sequence_length, example.unlearnt)
    except TemplateRenderError as error:
        reason = f"the model's chat template refuses it: {error}"
        return Problem(record.line, reason, RowRule.TEMPLATE_REFUSED, example.messages)
    # Nothing precedes the first token, so nothing predicts it.
    if any(end > max(start, 1) for start, end in encoded.spans):
        return encoded
    if encoded.truncated:
        reason = (
            f"the prompt alone fills hyperparameters.sequenceLength ({sequence_length} tokens), so nothing of the "
            "answer is left to learn: raise sequenceLength or shorten the prompt"
        )
    else:
        reason = "rendered with the chat template, nothing of it is left to learn: write an answer, or remove the row"
    return Problem(record.line, reason, RowRule.NOTHING_TO_LEARN, example.messages or example.text)


def _too_few(sources: Sequence[Source], records: int) -> StageError:
    names = " and ".join(source.given.path for source in sources)
    if records > 1:
        found = f"{records} records that are all the same"
    elif records == 1:
        found = "one record"
    else:
        found = "no record that can be trained on"
    return StageError(
        ExitCode.INVALID_DATA,
        f"{names} has {found}: at least two are needed, one to train on and one to hold out",
    )


def _shared(prompts: NDArray[np.uint64], train: NDArray[np.int64], validation: NDArray[np.int64]) -> NDArray[np.int64]:
    """The held-out rows whose prompt is trained on too; Text has none."""
    nothing = np.uint64(_hash([]))
    held = prompts[validation]
    return np.compress(np.isin(held, prompts[train]) & (held != nothing), validation)


def _said(example: Example) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in example.messages]


def _hash(parts: Sequence[str | None]) -> int:
    """Of the words, without case: 64 bits."""
    words = [None if part is None else " ".join(part.casefold().split()) for part in parts]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _digest(sources: Sequence[Source]) -> str:
    files = [file for source in sources for file in source.files]
    if len(files) == 1:
        return "sha256:" + sha256_file(files[0][1])
    whole = hashlib.sha256("".join(f"{sha256_file(path)}  {name}\n" for name, path in files).encode())
    return "sha256:" + whole.hexdigest()
