"""What a row says is learnt as it says it, or the row is refused: nothing is lost in silence."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import CHATML
from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import DatasetInput
from tunewright_trainer.data.account import Fate
from tunewright_trainer.data.build import Built, build_dataset
from tunewright_trainer.data.chat import ChatTemplate, TemplateRenderError
from tunewright_trainer.data.formats import parse_row
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.rows import BadRecordError, RowRule
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.errors import StageError

CHAT, ALPACA, PREFERENCE = DatasetFormat.CHAT, DatasetFormat.ALPACA, DatasetFormat.PREFERENCE
LOST = "says something that would be lost"


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
TURN = [user("q"), assistant("a")]
TWO_TURNS = [user("Sky?"), assistant("Green."), user("Really?"), assistant("Blue.")]
CALL = [{"function": {"name": "f", "arguments": {}}}]
OUTPUT = {"instruction": "q", "output": "a"}

REFUSED = [
    pytest.param({"messages": TURN, "tools": [{}]}, CHAT, f'"tools" {LOST}: tool calls are not supported', id="tools"),
    pytest.param(
        {"messages": [user("q"), assistant("I ask", tool_calls=CALL), user("and?"), assistant("a")]},
        CHAT,
        r'"messages\[1\].tool_calls" .* tool calls are not supported, remove the row, or name tool_calls in dataset.ig',
        id="a tool call beside a content",
    ),
    pytest.param(
        {"messages": [user("q"), assistant(None, tool_calls=CALL), {"role": "tool", "content": "r"}, assistant("a")]},
        CHAT,
        r'"messages\[1\].tool_calls" .* tool calls are not supported',
        id="a tool call without a content",
    ),
    pytest.param(
        {"messages": [user("q"), {"role": "tool", "content": "r"}, assistant("a")]},
        CHAT,
        r"messages\[1\] is by a tool: tool calls are not supported, remove the row",
        id="the answer of a tool",
    ),
    pytest.param(
        {"messages": [user("q"), assistant("a", reasoning_content="because")]},
        CHAT,
        r'"messages\[1\].reasoning_content" .* write it into content',
        id="reasoning",
    ),
    pytest.param(
        {"messages": TURN, "system": "Be brief."}, CHAT, f'"system" {LOST}: write it as the first', id="system"
    ),
    pytest.param({**OUTPUT, "system": "Be brief."}, ALPACA, f'"system" {LOST}: write it as the first', id="Alpaca's"),
    pytest.param({**OUTPUT, "history": [["q", "a"]]}, ALPACA, f'"history" {LOST}: write it as messages', id="history"),
    pytest.param(
        {"messages": [user("q"), assistant("a", weight=0.5)]},
        CHAT,
        r"messages\[1\].weight must be 0 \(not learnt\) or 1",
        id="half a weight",
    ),
    pytest.param(
        {"messages": [user("q"), assistant("a", weight=0)]},
        CHAT,
        "the last message has weight 0: end the row with the last answer that is to be learnt",
        id="nothing to learn at the end",
    ),
    pytest.param(
        {"messages": [user([{"type": "text", "text": "q"}]), assistant("a")]},
        CHAT,
        r'"messages\[0\].content" is a list instead of a string: put the text of its parts together; images',
        id="content parts",
    ),
    pytest.param(
        {"messages": [user(None), assistant("a")]},
        CHAT,
        r'"messages\[0\].content" is null instead of a string: write the text, or remove the row',
        id="no content",
    ),
    pytest.param({"instruction": "q", "output": 3}, ALPACA, "is a number instead of a string: put it in", id="number"),
    pytest.param(
        {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]},
        PREFERENCE,
        '"chosen" is a list instead of a string: write only the text; messages before an answer belong into prompt',
        id="answers as messages",
    ),
    pytest.param(
        {"messages": [{"role": ["user"], "content": "q"}]}, CHAT, r"messages\[0\].role must be one of", id="two roles"
    ),
]


@pytest.mark.parametrize(("row", "declared", "words"), REFUSED)
def test_what_cannot_be_learnt_is_refused_with_a_remedy(
    row: dict[str, Any], declared: DatasetFormat, words: str
) -> None:
    with pytest.raises(BadRecordError, match=words):
        parse_row(row, declared)


@pytest.mark.parametrize(
    ("row", "declared"),
    [
        pytest.param({"messages": TURN, "tools": [], "system": None}, CHAT, id="empty fields say nothing"),
        pytest.param({**OUTPUT, "history": [], "system": ""}, ALPACA, id="as LLaMA-Factory leaves them empty"),
        pytest.param({"messages": [user("q"), assistant("a", tool_calls=None, weight=1)]}, CHAT, id="as Parquet fills"),
    ],
)
def test_a_field_that_says_nothing_is_no_reason_to_refuse(row: dict[str, Any], declared: DatasetFormat) -> None:
    assert parse_row(row, declared).messages == TURN


def test_ignored_fields_are_lost_on_purpose() -> None:
    row = {"messages": [user("q"), assistant("a", tool_calls=CALL, weight=0)], "tools": CALL}
    example = parse_row(row, CHAT, ["tools", "tool_calls", "weight"])
    assert (example.messages, example.unlearnt) == (TURN, ())


def test_a_document_may_have_any_other_field() -> None:
    assert parse_row({"text": "t", "system": "Linux"}, DatasetFormat.TEXT).text == "t"


# --- what is learnt ---------------------------------------------------------------------------

GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
)
LAST_THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
)
"""As Qwen 3: an answer is written in another way once the conversation goes on."""
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""As DeepSeek R1: the prompt opens the reasoning."""
NO_SYSTEM = CHATML.replace("in messages", "in messages if message['role'] != 'system'")


def learnt(template: str, row: dict[str, Any]) -> list[str]:
    example = parse_row(row, CHAT)
    rendered = ChatTemplate(template, {}).render_with_spans(example.messages, example.unlearnt)
    return [rendered.text[start:end] for start, end in rendered.spans]


@pytest.mark.parametrize("template", [CHATML, GENERATION], ids=["by the prompt", "by marks"])
def test_an_answer_of_weight_0_is_not_learnt(template: str) -> None:
    row = {"messages": [TWO_TURNS[0], {**TWO_TURNS[1], "weight": 0}, *TWO_TURNS[2:]]}
    assert learnt(template, row) == ["Blue.<|im_end|>"]
    row["messages"][1]["weight"] = 1
    assert learnt(template, row) == ["Green.<|im_end|>", "Blue.<|im_end|>"]


def test_a_template_that_marks_some_answers_only_cannot_leave_one_out() -> None:
    marks_last = GENERATION.replace("m.role == 'assistant'", "m.role == 'assistant' and loop.last")
    with pytest.raises(TemplateRenderError, match=r"marks 1 parts of 2 answers .*: remove the row, or weight from it"):
        ChatTemplate(marks_last, {}).render_with_spans(TWO_TURNS, (1,))


def test_icons_of_a_font_are_text_like_any_other() -> None:
    icons = "\U000f0000\U000f0001 \U000f0010mine\U000f0011"
    messages = [user(icons), assistant(icons)]
    rendered = ChatTemplate(GENERATION, {}).render_with_spans(messages)
    assert rendered.text == f"<|im_start|>user\n{icons}<|im_end|>\n<|im_start|>assistant\n{icons}<|im_end|>\n"
    assert [rendered.text[start:end] for start, end in rendered.spans] == [f"{icons}<|im_end|>"]
    assert icons in ChatTemplate(GENERATION, {}).render(messages[:1], add_generation_prompt=True)


def test_a_prompt_that_opens_the_reasoning_needs_an_answer_that_begins_with_it() -> None:
    with pytest.raises(
        TemplateRenderError,
        match=r"opens an answer with '<think>\\n' .*: begin the answer with it, or write {% generation %} and",
    ):
        learnt(THINKS, {"messages": TURN})
    assert learnt(THINKS, {"messages": [user("q"), assistant("<think>\nso\n</think>a")]}) == ["so\n</think>a<|im_end|>"]


# --- from files to records --------------------------------------------------------------------


def write(directory: Path, rows: list[dict[str, Any]], **rules: Any) -> DatasetInput:
    (directory / "out").mkdir(parents=True)
    path = directory / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetInput.model_validate({"path": str(path), "format": "Chat", "validationPercent": 20, **rules})


def build(directory: Path, model: Path, rows: list[dict[str, Any]], *, length: int = 64, **rules: Any) -> Built:
    dataset = write(directory, rows, **rules)
    sources = locate(dataset, directory / "scratch")
    return build_dataset(dataset, sources, load_encoder(model), directory / "out", sequence_length=length, seed=1)


def with_template(model: Path, directory: Path, template: str) -> Path:
    copy = shutil.copytree(model, directory / "model")
    (copy / "chat_template.jinja").write_text(template)
    return copy


def rules_of(built: Built) -> list[tuple[int, str, str]]:
    return [(note.line, note.fate.value, note.rule.value) for note in built.notes]


def test_answers_that_the_template_rewrites_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    model = with_template(tiny_model, tmp_path, LAST_THINKS)
    turns = [user("why"), assistant("so"), user("and"), assistant("then")]
    long = [*turns[:3], assistant("x" * 300)]
    rows = [{"messages": messages} for messages in (TURN, turns, long, [user("another"), assistant("one")])]
    built = build(tmp_path / "set", model, rows, length=128)
    assert rules_of(built) == [(3, "fixed", "Truncated"), (2, "fixed", "EarlierAnswersNotLearnt")]
    said = "1 earlier answers are read and not learnt, because the chat template rewrites them"
    assert built.notes[0].reason == f"cut to sequenceLength (128 tokens); {said}"
    assert built.notes[1].reason == said
    account = built.account
    assert account.unchanged == 2
    assert account.read == account.unchanged + account.total(Fate.FIXED)


@pytest.mark.parametrize("on_long", ["Truncate", "Drop", "Fail"])
def test_a_pair_that_is_cut_to_the_same_tokens_is_not_trained_on(
    tiny_model: Path, tmp_path: Path, on_long: str
) -> None:
    same, right = "x" * 300, [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(3)]
    rows = [*right, {"prompt": "p", "chosen": same + "a", "rejected": same + "b"}]
    built = build(tmp_path / "set", tiny_model, rows, format="Preference", onBadRow="Quarantine", onLongRecord=on_long)
    want = {
        "Truncate": (4, "quarantined", "NothingToLearn"),
        "Drop": (4, "dropped", "TooLong"),
        "Fail": (4, "quarantined", "TooLong"),
    }
    assert rules_of(built) == [want[on_long]]
    if on_long == "Truncate":
        assert built.notes[0].reason.endswith(
            "chosen and rejected are the same, so there is nothing to prefer: raise it, or shorten the row"
        )


def test_a_pair_that_differs_only_in_what_the_template_strips(tiny_model: Path, tmp_path: Path) -> None:
    model = with_template(tiny_model, tmp_path, CHATML.replace("message['content']", "message['content'] | trim"))
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "a " if n == 2 else "b"} for n in range(4)]
    built = build(tmp_path / "set", model, rows, format="Preference", onBadRow="Quarantine")
    assert rules_of(built) == [(3, "quarantined", "NothingToLearn")]


def test_a_system_message_that_the_template_leaves_out(tiny_model: Path, tmp_path: Path) -> None:
    model = with_template(tiny_model, tmp_path, NO_SYSTEM)
    rows = [{"messages": [user(f"q{n}"), assistant("a")]} for n in range(3)]
    rows.append({"messages": [SYSTEM, *TURN]})
    built = build(tmp_path / "set", model, rows, onBadRow="Quarantine")
    (note,) = built.notes
    assert (note.line, note.rule) == (4, RowRule.TEMPLATE_REFUSED)
    assert note.reason == (
        "the model's chat template refuses it: it leaves out what the system message says: write that into the first "
        "message of the user"
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param(
            "{{ raise_exception('no') }}",
            r"fails on a question with its answer \(no\): use the template that came with the model",
            id="refuses everything",
        ),
        pytest.param("{{ nothing.at.all }}", "fails on .* use the template that came", id="an undefined variable"),
        pytest.param("{% for", "is not valid Jinja .*: use the template that came with the model", id="no Jinja"),
    ],
)
def test_a_template_that_fails_is_the_model_s_fault(
    tiny_model: Path, tmp_path: Path, template: str, words: str
) -> None:
    with pytest.raises(StageError, match=words) as caught:
        load_encoder(with_template(tiny_model, tmp_path, template)).check(chat=True)
    assert caught.value.code is ExitCode.INVALID_CONFIG


def test_a_template_may_insist_on_a_system_message(tiny_model: Path, tmp_path: Path) -> None:
    insists = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    load_encoder(with_template(tiny_model, tmp_path, insists)).check(chat=True)


def test_ten_times_the_rows_are_prepared_in_the_same_memory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read one at a time: what is kept of each is tens of bytes, not what it says."""
    # It reads the file in pieces that are larger than this one.
    monkeypatch.setattr("tunewright_trainer.data.build.sha256_file", lambda path: "0" * 64)
    said, encoder = 1000, load_encoder(tiny_model)

    def peak(name: str, count: int) -> int:
        directory = tmp_path / name
        rows = ({"messages": [user(f"{number} " + "x" * said), assistant("a")]} for number in range(count))
        dataset = write(directory, list(rows))
        sources = locate(dataset, directory / "scratch")
        tracemalloc.start()
        try:
            build_dataset(dataset, sources, encoder, directory / "out", sequence_length=3000, seed=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak("first", 40)  # what is imported and kept once
    few, many = peak("few", 40), peak("many", 400)
    assert many - few < 360 * said / 4
