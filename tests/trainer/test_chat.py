"""The chat template: what the assistant said, and the same text and tokens as transformers makes."""

from pathlib import Path

import pytest

from tests.trainer.support import CHATML, real_model
from tunewright_trainer.data.chat import ChatTemplate, TemplateRenderError
from tunewright_trainer.data.tokens import load_encoder, runs

TURNS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2 "},
]


def said(template: ChatTemplate, messages: list[dict[str, str]]) -> list[str]:
    rendered = template.render_with_spans(messages)
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_the_assistant_said_its_answers_and_the_end_of_turn() -> None:
    assert said(ChatTemplate(CHATML, {}), TURNS) == ["1<|im_end|>", "2 <|im_end|>"]


def test_generation_marks_of_the_template_win() -> None:
    marked = (
        "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
        "{% endfor %}"
    )
    template = ChatTemplate(marked, {"eos_token": "</s>"})
    assert said(template, TURNS) == ["1</s>", "2 </s>"]
    assert template.render(TURNS) == "[user]One?[assistant]1</s>[user]Two?[assistant]2 </s>"


def test_a_template_that_rewrites_earlier_answers_counts_only_the_last_one() -> None:
    source = (
        "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] != 'assistant' or loop.last %}{{ m['content'] }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert said(ChatTemplate(source, {}), TURNS)[-1].strip() == "2"
    assert len(said(ChatTemplate(source, {}), TURNS)) == 1


def test_a_template_may_refuse_the_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(TemplateRenderError, match="roles must alternate"):
        template.render(TURNS)


def test_a_template_cannot_reach_the_system() -> None:
    with pytest.raises(TemplateRenderError):
        ChatTemplate("{{ messages.__class__.__mro__ }}{{ ''.__class__.__base__.__subclasses__() }}", {}).render(TURNS)


def test_long_records_are_cut_and_counted(tiny_model: Path) -> None:
    encoder = load_encoder(tiny_model)
    whole = encoder.encode(TURNS[:2], 1000)
    assert not whole.truncated
    ((start, _),) = whole.spans
    cut = encoder.encode(TURNS[:2], len(whole.ids) - 2)
    assert cut.truncated
    assert cut.ids == whole.ids[:-2]
    # The newline after the end of turn is no answer.
    assert (whole.spans, cut.spans) == ([(start, len(whole.ids) - 1)], [(start, len(cut.ids))])


def test_runs() -> None:
    assert runs([True, True, False, True, False]) == [(0, 2), (3, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "real"])
def test_tokens_are_those_of_transformers(model: str, tiny_model: Path) -> None:
    path = tiny_model if model == "tiny" else real_model()
    if not path.is_dir():
        pytest.skip("the real model is not in the cache")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    encoder = load_encoder(path)
    hard = [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  Grüße, 12345 & <b>🙂</b> {{ x }} <|im_end|>\t\n"},
        {"role": "assistant", "content": "«Ça va»\n\n- 1\n- 2"},
    ]
    for messages in (hard, hard[1:], TURNS):
        theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert encoder.encode(messages, 10_000).ids == theirs
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert encoder.encode_prompt(messages[:-1]) == prompt
