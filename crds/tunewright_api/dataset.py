"""spec.dataset of a FineTuneJob: the records to train on."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import LocalObjectRef, Model, Rule
from tunewright_api.uris import DataUri

S3_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys that dataset.secretRef must have; they become environment variables of prepare."""
S3_SETTINGS = ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION")
"""Keys that it may have."""


class DatasetFormat(StrEnum):
    """Shape of one row."""

    ALPACA = "Alpaca"
    CHAT = "Chat"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT = "Text"
    INPUT_TARGET = "InputTarget"
    PREFERENCE = "Preference"


class BadRowPolicy(StrEnum):
    """What happens to a row that is wrong."""

    FAIL = "Fail"
    QUARANTINE = "Quarantine"


class LongRecordPolicy(StrEnum):
    """What happens to a record that is longer than sequenceLength."""

    TRUNCATE = "Truncate"
    SPLIT = "Split"
    DROP = "Drop"
    FAIL = "Fail"


def long_record_policy(given: LongRecordPolicy | None, dataset_format: DatasetFormat) -> LongRecordPolicy:
    """onLongRecord of records of a format. A document goes on meaning something from any place on, so nothing of a
    Text is thrown away unless that is asked for; half a conversation has lost its question."""
    if given:
        return given
    return LongRecordPolicy.SPLIT if dataset_format is DatasetFormat.TEXT else LongRecordPolicy.TRUNCATE


class DuplicatePolicy(StrEnum):
    """What happens to a row that repeats an earlier one."""

    KEEP = "Keep"
    DROP = "Drop"


class MixturePart(Model):
    """One of several datasets, and how much of it is seen."""

    uri: DataUri = Field(description="As dataset.uri.")
    format: DatasetFormat = Field(description="As dataset.format.")
    weight: int = Field(
        ge=1, le=1000, description="Share of the positions of training, relative to the weights of the other parts."
    )


FORMAT_RULES = (
    Rule(
        "!has(self.mixture) || self.mixture.all(p, p.format == 'Preference') || "
        "self.mixture.all(p, p.format != 'Preference')",
        "dataset.mixture: Preference holds pairs, so it can only be mixed with Preference",
    ),
    Rule(
        "!has(self.onLongRecord) || self.onLongRecord != 'Split' || (has(self.format) && self.format == 'Text') || "
        "(has(self.mixture) && self.mixture.all(p, p.format == 'Text'))",
        "dataset.onLongRecord: Split divides documents, so it needs the format Text: write Truncate, Drop or Fail, or "
        "leave it out to divide Text and to cut the others",
    ),
)
"""What formats can do, wherever the records are: of spec.dataset and of the trainer's dataset."""


class Dataset(Model):
    """The records to train on: one dataset (uri and format), or several (mixture)."""

    cel: ClassVar = (
        Rule(
            "has(self.uri) != has(self.mixture) && has(self.uri) == has(self.format)",
            "dataset: write uri and format for one dataset, or mixture for several",
        ),
        Rule(
            "!has(self.secretRef) || (has(self.uri) && self.uri.startsWith('s3://')) || "
            "(has(self.mixture) && self.mixture.exists(p, p.uri.startsWith('s3://')))",
            "dataset.secretRef holds the credentials of s3:// data: remove it for pvc:// data",
        ),
        *FORMAT_RULES,
    )

    uri: DataUri | None = Field(
        default=None,
        description="File or directory: pvc://CLAIM/PATH or s3://BUCKET/KEY. JSON Lines (.jsonl), a JSON array "
        "(.json) or CSV, each also with gzip or zstd (.gz, .zst), or Parquet; a directory of files of "
        "one of these kinds, or one that Hugging Face's save_to_disk wrote.",
    )
    format: DatasetFormat | None = Field(
        default=None,
        description="Alpaca: {instruction, input?, output}. Chat: {messages: [{role, content}]}, the last one "
        "by the assistant. PromptCompletion: {prompt, completion}. Text: {text}, all of which is learnt. InputTarget: "
        "{input, target, metadata?}. Preference: {prompt, chosen, rejected}.",
    )
    mixture: list[MixturePart] | None = Field(
        default=None,
        min_length=2,
        max_length=16,
        description="Several datasets at fixed shares: tasks, or general instructions that are replayed against "
        "forgetting. An epoch is as many records as all parts have together.",
    )
    secret_ref: LocalObjectRef | None = Field(
        default=None,
        description="Secret for s3:// data with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and if need be "
        "AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_REGION.",
    )
    ignore_fields: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] | None = Field(
        default=None,
        max_length=32,
        description="Fields of the rows that do not count, where rows would read as two formats or say what cannot be "
        "learnt, such as tools.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    validation_percent: int = Field(
        default=10,
        ge=1,
        le=50,
        description="Share of the distinct records held out for evaluation, in percent; chosen by "
        "hyperparameters.seed. Copies of a record stay on one side.",
    )
    on_bad_row: BadRowPolicy = Field(
        default=BadRowPolicy.FAIL,
        description="Fail: a wrong row ends the job. Quarantine: it is set aside with its line and the reason.",
    )
    on_long_record: LongRecordPolicy | None = Field(
        default=None,
        description="Of records longer than sequenceLength. Truncate: cut them. Split: divide them into consecutive "
        "pieces of similar length, each of which is a record to train on; for Text. Drop: leave them out. Fail: end "
        "the job. If absent: Split for Text, Truncate for the other formats.",
    )
    on_duplicate: DuplicatePolicy = Field(
        default=DuplicatePolicy.KEEP,
        description="Of rows that repeat an earlier one but for case and white space. Keep: train on each. Drop: leave "
        "them out.",
    )

    @property
    def uris(self) -> dict[str, str]:
        """Field of the spec -> the URI in it."""
        if self.mixture:
            return {f"dataset.mixture[{index}].uri": part.uri for index, part in enumerate(self.mixture)}
        return {"dataset.uri": self.uri or ""}

    @property
    def in_s3(self) -> bool:
        """Whether any of the data is in S3."""
        return any(uri.startswith("s3://") for uri in self.uris.values())
