"""The model's own chat template, rendered without transformers.

Training, evaluation and vLLM must feed the model the same text. The template comes from the file that serving
reads too, and the Jinja environment is that of `transformers.utils.chat_template_utils` (tests compare the two
token by token); importing transformers' tokenizers would pull in torch and cost seconds per container.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunewright_api.names import ExitCode
from tunewright_trainer.data.formats import Message
from tunewright_trainer.data.model_files import damaged, read_json
from tunewright_trainer.errors import StageError

TEMPLATE_FILE = "chat_template.jinja"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
_Marks = tuple[str, str]
"""Two characters around what the assistant says, where the template marks it."""


class TemplateRenderError(ValueError):
    """The template refused the messages; the text is the template's own."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = jinja2.nodes.Name("generation_marks", "load")
        return jinja2.nodes.CallBlock(self.call_method("_mark", [marks]), [], [], body).set_lineno(line)

    def _mark(self, marks: _Marks, caller: Any) -> str:
        return f"{marks[0]}{caller()}{marks[1]}"


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: All of it.
        spans: Half-open character ranges that the assistant wrote, of the answers that are to be learnt.
        rewritten: Answers of those that do not count, because the template writes them in another way once the
            conversation goes on.
    """

    text: str
    spans: list[tuple[int, int]]
    rewritten: int = 0


class ChatTemplate:
    """A compiled chat template with the tokenizer's special tokens."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        self.source = source
        self.special_tokens = special_tokens
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source)
        self._marks_generation = "endgeneration" in source

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The conversation as the model reads it."""
        marks = _unused(self.source, messages)
        return _strip_marks(self._raw(messages, add_generation_prompt, marks), marks).text

    def render_with_spans(self, messages: Sequence[Message], unlearnt: Collection[int] = ()) -> Rendered:
        """The conversation, and what of it the assistant wrote.

        A template with `{% generation %}` says so itself. Otherwise an answer is what follows the rendered prompt:
        render(messages[:i], add_generation_prompt) must be a prefix of the text. Where that fails for an earlier
        answer (templates that drop old reasoning) it does not count.

        Args:
            messages: Ends with the assistant's answer.
            unlearnt: Numbers of the messages that are answers not to be learnt.

        Raises:
            TemplateRenderError: The template refuses the messages, or does not show where answers begin.
        """
        marks = _unused(self.source, messages)
        raw = self._raw(messages, False, marks)
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if not self._marks_generation:
            return self._answers_after_prompts(raw, messages, [index for index in answers if index not in unlearnt])
        rendered = _strip_marks(raw, marks)
        if not unlearnt:
            return replace(rendered, rewritten=max(0, len(answers) - len(rendered.spans)))
        if len(rendered.spans) != len(answers):
            raise TemplateRenderError(
                f"it marks {len(rendered.spans)} parts of {len(answers)} answers as generated, so that the one with "
                "weight 0 cannot be told: remove the row, or weight from it"
            )
        spans = [span for index, span in zip(answers, rendered.spans, strict=True) if index not in unlearnt]
        return replace(rendered, spans=spans)

    def _answers_after_prompts(self, text: str, messages: Sequence[Message], answers: Collection[int]) -> Rendered:
        spans = []
        last = len(messages) - 1
        for index in answers:
            prefix = self.render(messages[:index], add_generation_prompt=True)
            until = text if index == last else self.render(messages[: index + 1])
            if text.startswith(prefix) and text.startswith(until):
                # White space after the end-of-turn token belongs to the template, not to the answer.
                spans.append((len(prefix), len(prefix) + len(until[len(prefix) :].rstrip())))
            elif index == last:
                differs = next((at for at, (a, b) in enumerate(zip(prefix, text, strict=False)) if a != b), len(text))
                raise TemplateRenderError(
                    f"it opens an answer with {prefix[differs : differs + 40]!r} and does not write this here, so "
                    "nothing shows where the answer begins: begin the answer with it, or write {% generation %} and "
                    f"{{% endgeneration %}} around what the assistant says in the model's {TEMPLATE_FILE}"
                )
        return Rendered(text, spans, len(answers) - len(spans))

    def _raw(self, messages: Sequence[Message], add_generation_prompt: bool, marks: _Marks) -> str:
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                generation_marks=marks,
                **self.special_tokens,
            )
        except Exception as error:  # a template is a program: it can raise whatever Python does
            raise TemplateRenderError(str(error)) from error


def template_source(model: Path) -> str | None:
    """The chat template of a model directory: chat_template.jinja, or the entry in tokenizer_config.json; a base model
    may have none.

    Raises:
        StageError: INPUT_NOT_READABLE for a damaged file.
    """
    config = read_json(model / "tokenizer_config.json")
    file = model / TEMPLATE_FILE
    try:
        source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    except UnicodeDecodeError as error:
        raise damaged(file, error) from error
    if isinstance(source, list):
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    return source or None


def template_digest(model: Path) -> str | None:
    """`sha256:…` of the text of a model's chat template."""
    source = template_source(model)
    return None if source is None else "sha256:" + hashlib.sha256(source.encode()).hexdigest()


def load_template(model: Path) -> ChatTemplate:
    """The chat template of a model directory, compiled.

    Raises:
        StageError: INVALID_CONFIG when the model has none (a base model instead of a chat model).
    """
    source = template_source(model)
    if not source:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"the base model {model} has no chat template ({TEMPLATE_FILE}): use its instruct or chat variant",
        )
    try:
        return ChatTemplate(source, special_tokens(model))
    except jinja2.TemplateError as error:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"the chat template of {model} is not valid Jinja ({error}): use the template that came with the model",
        ) from error


def special_tokens(model: Path) -> dict[str, str]:
    """Name -> text, such as eos_token, as far as the model directory says."""
    tokens = {**read_json(model / "special_tokens_map.json"), **read_json(model / "tokenizer_config.json")}
    return {name: _token_text(tokens[name]) for name in _SPECIAL if tokens.get(name) is not None}


def _unused(source: str, messages: Sequence[Message]) -> _Marks:
    """Two characters that neither the template nor the messages contain; icons of fonts are private use too."""
    text = "".join([source, *(message["content"] for message in messages)])
    free = (mark for mark in map(chr, _PRIVATE_USE) if mark not in text)
    return next(free), next(free)


def _strip_marks(raw: str, marks: _Marks) -> Rendered:
    spans, text = [], ""
    for part in raw.split(marks[0]):
        inside, closed, rest = part.partition(marks[1])
        if closed:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + rest
    return Rendered(text, spans)


def _token_text(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
