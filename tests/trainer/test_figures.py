"""Every figure against known values or an independent computation."""

import math
import os
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.support import Job
from tunewright_api.evaluation import DEFAULT_METRICS, Evaluation, MetricName
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.errors import StageError
from tunewright_trainer.evaluation import text
from tunewright_trainer.evaluation.answers import TIMED_ANSWERS, Speed, measure_speed, percentile
from tunewright_trainer.evaluation.compare import Measured, Plan, compare, plan_figures
from tunewright_trainer.evaluation.harness import TaskScore
from tunewright_trainer.evaluation.kept import Kept
from tunewright_trainer.evaluation.loss import MAX_PERPLEXITY, batches, evaluate_loss, perplexity
from tunewright_trainer.evaluation.text import TEXT_FIGURES

phrases = st.text(st.sampled_from("ab the.,'!T 9\n"), max_size=40)


def test_exact_match_and_perplexity() -> None:
    assert text.exact_match(["a  b\n", "c"], ["a b", "d"]) == 0.5
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e9) == MAX_PERPLEXITY


# --- ROUGE ------------------------------------------------------------------------------------


def test_rouge_of_the_sentences_in_lins_paper() -> None:
    """Lin 2004, section 3.1: "police kill the gunman" shares 3 of 4 words and a subsequence of 3 with the reference."""
    reference, answer = "police killed the gunman", "police kill the gunman"
    assert text.rouge_1([answer], [reference]) == 0.75
    assert text.rouge_2([answer], [reference]) == pytest.approx(1 / 3)  # "the gunman" of three pairs each
    assert text.rouge_l([answer], [reference]) == 0.75
    assert text.rouge_l(["the gunman kill police"], [reference]) == 0.5
    assert text.rouge_l(["the cat sat", ""], ["the cat sat", "x"]) == 0.5


@pytest.mark.parametrize(
    ("answer", "reference", "want"),
    [
        pytest.param("Москва — столица России", "Столица России: Москва", 2 / 3, id="Cyrillic"),
        pytest.param("东京是首都。", "日本的首都是东京", 2 * 2 / (5 + 8), id="CJK, by character"),
        pytest.param("नमस्ते दुनिया", "नमस्ते", 2 / 3, id="marks belong to their word"),
        pytest.param("Caf\u00e9", "cafe\u0301", 1.0, id="two spellings of one letter"),
        pytest.param("Привет", "Пока", 0.0, id="different words"),
    ],
)
def test_rouge_l_of_any_script(answer: str, reference: str, want: float) -> None:
    assert text.rouge_l([answer], [reference]) == pytest.approx(want)


def test_english_words_are_those_of_rouge_score() -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    words = "It's item_7: the code (TW-0042) isn't 3.14, said e-mail\n\tNo. 5!"
    assert text.Words().tokenize(words) == DefaultTokenizer().tokenize(words)


@given(st.lists(st.tuples(phrases, phrases), min_size=1, max_size=4))
def test_rouge_by_hand(pairs: list[tuple[str, str]]) -> None:
    def by_hand(answer: str, reference: str, n: int) -> float:
        grams = [re.findall(r"[a-z0-9]+", side.lower()) for side in (answer, reference)]
        a, r = ([tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in grams)
        common = sum((Counter(a) & Counter(r)).values())
        return 2 * common / (len(a) + len(r)) if common else 0.0

    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    for n, figure in ((1, text.rouge_1), (2, text.rouge_2)):
        assert figure(answers, references) == pytest.approx(numpy.mean([by_hand(a, r, n) for a, r in pairs]))


# --- BLEU -------------------------------------------------------------------------------------


def bleu_by_hand(answers: list[str], references: list[str]) -> float:
    """Papineni et al. 2002 over words separated by spaces, where every precision is positive."""
    logs = 0.0
    for n in range(1, 5):
        hits = total = 0
        for answer, reference in zip(answers, references, strict=True):
            a, r = (
                Counter(zip(*(words[i:] for i in range(n)), strict=False))
                for words in (answer.split(), reference.split())
            )
            hits, total = hits + sum((a & r).values()), total + sum(a.values())
        logs += math.log(hits / total) / 4
    said, wanted = sum(len(a.split()) for a in answers), sum(len(r.split()) for r in references)
    return 100 * min(1.0, math.exp(1 - wanted / said)) * math.exp(logs)


def test_bleu() -> None:
    answers = ["the cat sat on the mat today", "it is a guide to action which ensures"]
    references = ["the cat sat on the mat yesterday evening", "it is a guide to action that ensures"]
    assert text.bleu(references, references) == pytest.approx(100)
    assert text.bleu(answers, references) == pytest.approx(bleu_by_hand(answers, references))
    assert text.bleu(["东京是日本的首都"], ["东京是日本的首都。"]) == pytest.approx(
        bleu_by_hand([" ".join("东京是日本的首都")], [" ".join("东京是日本的首都。")])
    )


# --- F1 ---------------------------------------------------------------------------------------


def squad_f1(answer: str, reference: str) -> float:
    """As the description of SQuAD 1.1 has it, written anew: precision and recall of the bag of words."""

    def words(raw: str) -> list[str]:
        bare = "".join(character for character in raw.lower() if character not in set(string.punctuation))
        return [word for word in re.sub(r"\b(a|an|the)\b", " ", bare).split() if word]

    said, wanted = words(answer), words(reference)
    if not said or not wanted:
        return float(said == wanted)
    left, common = list(wanted), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


@given(phrases, phrases)
def test_f1_is_that_of_squad(answer: str, reference: str) -> None:
    assert text.f1([answer], [reference]) == pytest.approx(squad_f1(answer, reference))


def test_f1() -> None:
    assert text.f1(["The Eiffel Tower!"], ["eiffel tower"]) == 1.0
    assert text.f1(["in Paris, France", "no"], ["Paris", "yes"]) == pytest.approx((2 * (1 / 3) / (4 / 3)) / 2)
    assert text.f1(["東京"], ["東京都"]) == pytest.approx(2 * 2 / 5)


# --- accuracy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("references", "want"),
    [
        pytest.param(["Yes", "no.", "yes", "No"], ["no", "yes"], id="two labels, in any case and punctuation"),
        pytest.param(["yes"] * 4, [], id="one label tells nothing apart"),
        pytest.param(["a", "b", "c", "a"], [], id="too many for so few records"),
        pytest.param(["yes", "…", "yes", "…"], [], id="a label without words"),
        pytest.param([f"label {i}" for i in range(101)] * 2, [], id="more than MAX_LABELS"),
    ],
)
def test_labels(references: list[str], want: list[str]) -> None:
    assert text.labels_of(references) == want


def test_accuracy() -> None:
    labels = ["negative", "neutral", "not sure", "not"]
    answers = ["Negative.", "not sure at all", "Not really", "nothing", "The answer is neutral"]
    references = ["negative", "not sure", "not", "not", "neutral"]
    assert text.accuracy(answers, references, labels) == 3 / 5


def records(answers: list[str]) -> list[PreparedRecord]:
    """Records with these answers."""
    message = {"role": "user", "content": "?"}
    return [PreparedRecord(n, [message, {"role": "assistant", "content": a}], [1], []) for n, a in enumerate(answers)]


def test_accuracy_of_a_set_without_labels_is_refused_before_training() -> None:
    asked = Evaluation(metrics=[MetricName.ACCURACY])
    assert plan_figures(asked, records(["yes", "no", "no", "yes"])) == Plan((MetricName.ACCURACY,), ["no", "yes"])
    assert plan_figures(Evaluation(), records(["a", "b", "c"])) == Plan(DEFAULT_METRICS)
    with pytest.raises(StageError, match=r"needs a labelled set.*the 3 held-out records have 3") as caught:
        plan_figures(asked, records(["a", "b", "c"]))
    assert caught.value.code is ExitCode.INVALID_CONFIG


def test_plain_text_has_no_answers() -> None:
    """Records of the format Text have no messages."""
    texts = [PreparedRecord(n, [], [1, 2], [(0, 2)]) for n in range(4)]
    assert plan_figures(Evaluation(), texts) == Plan([MetricName.LOSS, MetricName.PERPLEXITY])
    mixed = [*texts, *records(["yes", "no"])]
    assert plan_figures(Evaluation(), mixed) == Plan(DEFAULT_METRICS)
    for evaluation in (
        Evaluation(metrics=[MetricName.F1, MetricName.LOSS]),
        Evaluation.model_validate({"gates": [{"metric": "F1", "min": 0.5}]}),
    ):
        with pytest.raises(StageError, match="evaluation: F1 needs questions and answers") as caught:
            plan_figures(evaluation, texts)
        assert caught.value.code is ExitCode.INVALID_CONFIG


# --- loss, speed ------------------------------------------------------------------------------


def test_the_head_computes_what_the_loss_counts_alone(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    positions: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: positions.append(output.shape[1]))
    evaluate_loss(model, [PreparedRecord(1, [], list(range(100)), [(97, 100)])])
    assert positions == [3]


def test_loss_counts_the_answers_tokens_alone(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = [
        PreparedRecord(1, [], [5, 6, 7, 8, 9, 10], [(3, 6)]),
        PreparedRecord(2, [], [11, 12, 13], [(0, 1), (2, 3)]),
    ]
    nats, count = 0.0, 0
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0].double()
        for start, end in row.spans:
            for position in range(max(start, 1), end):
                nats -= logits[position - 1].log_softmax(0)[row.ids[position]].item()
                count += 1
    assert count == 4
    assert evaluate_loss(model, rows) == pytest.approx(nats / count, rel=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(float(numpy.percentile(values, percent)))


def test_speed() -> None:
    now = 0.0

    def answer(prompt: list[int]) -> int:
        nonlocal now
        now += prompt[0]
        return 10

    prompts = [[seconds] for seconds in range(1, TIMED_ANSWERS + 5)]
    seconds = range(1, TIMED_ANSWERS + 1)
    assert measure_speed(answer, prompts, clock=lambda: now) == Speed(10.5, 19.05, 10 * len(seconds) / sum(seconds))


# --- both models ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evaluation", "want"),
    [
        pytest.param({}, DEFAULT_METRICS, id="the usual four"),
        pytest.param({"metrics": ["F1"]}, (MetricName.F1,), id="only what is asked for"),
        pytest.param(
            {"metrics": ["F1"], "gates": [{"metric": "Loss", "max": 2}]},
            (MetricName.LOSS, MetricName.F1),
            id="what a gate judges",
        ),
        pytest.param(
            {"metrics": ["Loss"], "general": {"uri": "pvc://data/g.jsonl", "format": "Alpaca"}},
            (MetricName.LOSS, MetricName.GENERAL_LOSS, MetricName.FORGETTING_LOSS),
            id="what a part of the evaluation gives",
        ),
    ],
)
def test_wanted_figures(evaluation: dict[str, object], want: tuple[MetricName, ...]) -> None:
    assert Evaluation.model_validate(evaluation).wanted == want


def test_what_was_measured_is_kept_for_the_same_weights_alone(job: Callable[..., Job], tmp_path: Path) -> None:
    config = TrainerConfig.model_validate(job().config)
    trained, file = tmp_path / "trained", tmp_path / "measured.json"
    trained.mkdir()
    kept = Kept(file, config, trained)
    assert kept.read() == {}
    found = {"base": Measured({MetricName.LOSS: 2.5}, ["me"], [TaskScore("sums", "acc", 0.5)], ["4"])}
    kept.write(found)
    assert Kept(file, config, trained).read() == found
    os.utime(trained, (1, 1))
    assert Kept(file, config, trained).read() == {}
    kept.remove()
    kept.remove()
    assert not file.exists()


def test_both_models_side_by_side() -> None:
    evaluation = Evaluation.model_validate(
        {
            "metrics": ["Loss"],
            "samplePrompts": ["Who?"],
            "general": {"uri": "pvc://data/g.jsonl", "format": "Alpaca"},
            "harness": {"uri": "pvc://data/tasks", "tasks": ["sums"]},
        }
    )
    loss, general, score = MetricName.LOSS, MetricName.GENERAL_LOSS, MetricName.HARNESS_SCORE
    base = Measured({loss: 2.5, general: 1.25, score: 0.5}, ["me"], [TaskScore("sums", "acc", 0.5)])
    tuned = Measured({loss: 1.5, general: 1.5, score: 0.75}, ["you"], [TaskScore("sums", "acc", 0.75)])
    assert compare(base, tuned, 7, evaluation).to_dict() == {
        "records": 7,
        "metrics": [
            {"metric": "Loss", "base": 2.5, "tuned": 1.5},
            {"metric": "GeneralLoss", "base": 1.25, "tuned": 1.5},
            {"metric": "ForgettingLoss", "base": 0.0, "tuned": 0.25},
            {"metric": "HarnessScore", "base": 0.5, "tuned": 0.75},
        ],
        "samples": [{"prompt": "Who?", "base": "me", "tuned": "you"}],
        "tasks": [{"task": "sums", "metric": "acc", "base": 0.5, "tuned": 0.75}],
    }


@given(st.lists(st.integers(1, 200), max_size=30).map(sorted), st.integers(1, 1000))
def test_batches_of_the_loss_hold_every_record_once_and_few_tokens(lengths: list[int], tokens: int) -> None:
    found = list(batches(lengths, tokens))
    assert [index for start, end in found for index in range(start, end)] == list(range(len(lengths)))
    assert all(end - start == 1 or (end - start) * lengths[end - 1] <= tokens for start, end in found)


def test_composed_and_decomposed_characters_are_the_same() -> None:
    composed, decomposed = ["caf\u00e9 noir est bon"], ["cafe\u0301 noir est bon"]
    figures = {name: compute(composed, decomposed) for name, compute in TEXT_FIGURES.items()}
    assert figures == {name: pytest.approx(100 if name is MetricName.BLEU else 1) for name in TEXT_FIGURES}
