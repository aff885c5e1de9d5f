"""Chat messages -> token ids with the assistant's tokens marked, by the `tokenizers` library alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_trainer.data.chat import ChatTemplate, load_template
from tunewright_trainer.data.records import Message
from tunewright_trainer.errors import not_readable

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Encoded:
    """One record as the model reads it.

    Attributes:
        ids: Token ids, shape (length,).
        spans: Half-open ranges of positions in ids that the assistant wrote; the loss counts only these.
        truncated: Whether the record was longer than the sequence length.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    truncated: bool

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(end - start for start, end in self.spans)


class ChatEncoder:
    """Tokenizer and chat template of one model directory."""

    def __init__(self, template: ChatTemplate, tokenizer: Any) -> None:
        self.template = template
        self._tokenizer = tokenizer

    def encode(self, messages: list[Message], sequence_length: int) -> Encoded:
        """Render and tokenize a conversation, cut to sequence_length tokens from the left end."""
        rendered = self.template.render_with_spans(messages)
        # The template writes the special tokens itself, so none are added (as apply_chat_template does).
        encoding = self._tokenizer.encode(rendered.text, add_special_tokens=False)
        marks = [any(start <= begin < end for start, end in rendered.spans) for begin, _ in encoding.offsets]
        ids = list(encoding.ids)
        return Encoded(ids[:sequence_length], runs(marks[:sequence_length]), len(ids) > sequence_length)

    def encode_prompt(self, messages: list[Message]) -> list[int]:
        """Token ids of a conversation that waits for the assistant."""
        text = self.template.render(messages, add_generation_prompt=True)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def runs(marks: list[bool]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive true positions."""
    ranges: list[tuple[int, int]] = []
    for index, mark in enumerate(marks):
        if not mark:
            continue
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges


def load_encoder(model: Path) -> ChatEncoder:
    """Tokenizer and template of a model directory.

    Raises:
        StageError: INPUT_NOT_READABLE without a tokenizer.json, INVALID_CONFIG without a chat template.
    """
    from tokenizers import Tokenizer

    template = load_template(model)
    file = model / TOKENIZER_FILE
    if not file.is_file():
        raise not_readable(file, "it does not exist, so this is no model directory with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ChatEncoder(template, tokenizer)
