"""Chat messages -> token ids with the assistant's tokens marked, by the `tokenizers` library alone."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_trainer.data.chat import ChatTemplate, TemplateRenderError, load_template, special_tokens
from tunewright_trainer.data.formats import Message
from tunewright_trainer.data.model_files import damaged, read_json
from tunewright_trainer.errors import StageError

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Encoded:
    """One record as the model reads it.

    Attributes:
        ids: Token ids, shape (length,).
        spans: Half-open ranges of positions in ids that the assistant wrote; the loss counts only these.
        truncated: Whether the record was longer than the sequence length.
        rewritten: Earlier answers that do not count, because the chat template rewrites them.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    truncated: bool
    rewritten: int = 0


def divide(whole: Encoded, sequence_length: int) -> list[Encoded]:
    """Cut a text into as few consecutive pieces as hold it, whose lengths differ by one token at most: a short rest
    would have little to learn from, and one token alone nothing. All of a piece is learnt but its first token."""
    size, count = len(whole.ids), -(-len(whole.ids) // sequence_length)
    bounds = [size * number // count for number in range(count + 1)]
    return [Encoded(whole.ids[a:b], [(0, b - a)], truncated=False) for a, b in pairwise(bounds)]


class ChatEncoder:
    """Tokenizer and chat template of one model directory."""

    def __init__(self, model: Path, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template; read when it is needed, because Text needs none.

        Raises:
            StageError: INVALID_CONFIG without one.
        """
        return load_template(self._model)

    def encode(self, messages: list[Message], sequence_length: int, unlearnt: Collection[int] = ()) -> Encoded:
        """Render and tokenize a conversation, cut to sequence_length tokens from the left end; `unlearnt` are the
        numbers of answers that are not to be learnt.

        Raises:
            TemplateRenderError: The template refuses the messages, or leaves the system message out.
        """
        if messages[0]["role"] == "system" and self._leaves_out_system:
            raise TemplateRenderError(
                "it leaves out what the system message says: write that into the first message of the user"
            )
        rendered = self.template.render_with_spans(messages, unlearnt)
        # The template writes the special tokens itself, so none are added (as apply_chat_template does).
        encoding = self._tokenizer.encode(rendered.text, add_special_tokens=False)
        marks = _marks([begin for begin, _ in encoding.offsets], rendered.spans)
        ids = list(encoding.ids)
        cut = len(ids) > sequence_length
        return Encoded(ids[:sequence_length], runs(marks[:sequence_length]), cut, rendered.rewritten)

    @cached_property
    def _leaves_out_system(self) -> bool:
        try:
            return _SYSTEM["content"] not in self.template.render([_SYSTEM, *_PROBE])
        except TemplateRenderError:
            return False  # it says itself what it refuses

    def encode_text(self, text: str, sequence_length: int) -> Encoded:
        """Tokenize a text with the special tokens that the tokenizer adds, and the end token; all of it is learnt."""
        ids = [*self._tokenizer.encode(text).ids, *self._end]
        kept = ids[:sequence_length]
        return Encoded(kept, [(0, len(kept))], len(ids) > sequence_length)

    @cached_property
    def _end(self) -> list[int]:
        end = self._tokenizer.token_to_id(special_tokens(self._model).get("eos_token", ""))
        return [] if end is None else [end]

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones too."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def check(self, *, chat: bool) -> None:
        """Whether tokenizer, template and model belong together.

        Raises:
            StageError: INVALID_CONFIG for a tokenizer with more tokens than the model has embeddings, and, where there
                are conversations, a template that leaves out what is said or writes markers that are no tokens.
        """
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        rows = _vocabulary_size(self._model)
        if rows is not None and largest >= rows:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"the tokenizer of {self._model} has token ids up to {largest} and the model embeddings for {rows}: "
                "use the tokenizer that came with the model, or resize the embeddings and save both together",
            )
        if chat:
            self._check_template()

    def _check_template(self) -> None:
        try:
            text = self._rendered_probe()
        except TemplateRenderError as error:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"the chat template of {self._model} fails on a question with its answer ({error}): use the template "
                "that came with the model",
            ) from error
        for message in _PROBE:
            if message["content"] not in text:
                raise StageError(
                    ExitCode.INVALID_CONFIG,
                    f"the chat template of {self._model} leaves out what the {message['role']} says: use the template "
                    "that came with the model",
                )
        unknown = [mark for mark in _MARKER.findall(text) if self._tokenizer.token_to_id(mark) is None]
        if unknown:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"the chat template of {self._model} writes {unknown[0]}, which is no token of its tokenizer: use the "
                "template that came with the model, or add the token and resize the embeddings",
            )

    def _rendered_probe(self) -> str:
        try:
            return self.template.render(_PROBE)
        except TemplateRenderError:
            # One that insists on a system message fits records that have one.
            return self.template.render([_SYSTEM, *_PROBE])

    def encode_prompt(self, messages: list[Message]) -> list[int]:
        """Token ids of a conversation that waits for the assistant."""
        text = self.template.render(messages, add_generation_prompt=True)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


_SYSTEM: Message = {"role": "system", "content": "Tunewright instructs"}
_PROBE: list[Message] = [
    {"role": "user", "content": "Tunewright asks"},
    {"role": "assistant", "content": "Tunewright answers"},
]
_MARKER = re.compile(r"<\|[^|<>\s]+\|>")
"""How templates write special tokens, such as <|im_end|>."""


def _vocabulary_size(model: Path) -> int | None:
    """Rows of the embedding, as config.json says; None if it does not."""
    config = read_json(model / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return int(size) if size else None


def _marks(begins: list[int], spans: list[tuple[int, int]]) -> list[bool]:
    """Whether each token begins inside a span; both are in ascending order."""
    marks, number = [], 0
    for begin in begins:
        while number < len(spans) and spans[number][1] <= begin:
            number += 1
        marks.append(number < len(spans) and spans[number][0] <= begin)
    return marks


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
        StageError: INPUT_NOT_READABLE without a tokenizer.json, or with a damaged one.
    """
    from tokenizers import Tokenizer

    file = model / TOKENIZER_FILE
    if not file.is_file():
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"cannot read {file}: it does not exist, and other kinds of tokenizers are not read: make it with "
            "AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY) of transformers",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more exact
        raise damaged(file, error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ChatEncoder(model, tokenizer)
