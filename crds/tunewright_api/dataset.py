"""spec.dataset of a FineTuneJob: the records to train on."""

from enum import StrEnum

from pydantic import Field

from tunewright_api.base import (
    Model,
)
from tunewright_api.uris import PvcUri


class DatasetFormat(StrEnum):
    """Shape of one JSON line."""

    ALPACA = "Alpaca"
    CHAT = "Chat"
    PROMPT_COMPLETION = "PromptCompletion"


class Dataset(Model):
    """The records to train on."""

    uri: PvcUri = Field(description="JSON Lines file: pvc://CLAIM/PATH/FILE.jsonl.")
    format: DatasetFormat = Field(
        description="Alpaca: {instruction, input?, output}. Chat: {messages: [{role, content}]}, the last one "
        "by the assistant. PromptCompletion: {prompt, completion}."
    )
    validation_percent: int = Field(
        default=10,
        ge=1,
        le=50,
        description="Share of the records held out for evaluation, in percent; chosen by hyperparameters.seed.",
    )
