"""Figures that compare answers with references. Pure but for the imported BLEU and ROUGE implementations.

BLEU is 0 to 100, everything else 0 to 1.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from tunewright_api.evaluation import MetricName

MAX_LABELS = 100
"""More distinct references than this are no labels."""

_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # CJK
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_TOKEN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")
_UNSPACED_CHARACTER = re.compile(f"([{_UNSPACED}])")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """White space runs become one space, the ends none; composed and decomposed characters are the same."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def exact_match(answers: Sequence[str], references: Sequence[str]) -> float:
    """Share of answers equal to their reference after normalise."""
    hits = sum(normalise(a) == normalise(r) for a, r in zip(answers, references, strict=True))
    return hits / len(references)


class Words:
    """Tokenizer for rouge_score, whose own one keeps [a-z0-9] only: lower-case words of any script.

    A script that writes no spaces between words counts by character. ASCII text gives the tokens of rouge_score.
    """

    def tokenize(self, text: str) -> list[str]:
        """Runs of letters, marks and digits."""
        normal = unicodedata.normalize("NFC", text.lower())
        runs = groupby(normal, key=lambda character: unicodedata.category(character)[0] in "LMN")
        return [token for is_word, run in runs if is_word for token in _TOKEN.findall("".join(run))]


def rouge(kind: str, answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of ROUGE (Lin 2004), without stemming.

    Args:
        kind: rouge1 and rouge2 count common words and pairs of words, rougeL the longest common subsequence.
        answers: What the model wrote.
        references: What it should have written, in the same order.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=Words())
    pairs = zip(answers, references, strict=True)
    return sum(float(scorer.score(r, a)[kind].fmeasure) for a, r in pairs) / len(references)


def rouge_1(answers: Sequence[str], references: Sequence[str]) -> float:
    """ROUGE-1."""
    return rouge("rouge1", answers, references)


def rouge_2(answers: Sequence[str], references: Sequence[str]) -> float:
    """ROUGE-2."""
    return rouge("rouge2", answers, references)


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """ROUGE-L."""
    return rouge("rougeL", answers, references)


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """BLEU over all answers (Papineni et al. 2002) as sacreBLEU computes it (Post 2018), 0 to 100.

    Its signature is nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp. Characters of a script that writes no spaces are
    words of their own.
    """
    from sacrebleu.metrics.bleu import BLEU

    hypotheses = [_spaced(answer) for answer in answers]
    return float(BLEU(tokenize="13a").corpus_score(hypotheses, [[_spaced(r) for r in references]]).score)


def f1(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of the words that answer and reference share, as the evaluation of SQuAD counts it (Rajpurkar 2016)."""
    return sum(_token_f1(a, r) for a, r in zip(answers, references, strict=True)) / len(references)


def squad_words(text: str) -> list[str]:
    """Lower-case words without ASCII punctuation and English articles; unspaced scripts by character."""
    bare = _ARTICLES.sub(" ", unicodedata.normalize("NFC", text).lower().translate(_ASCII_PUNCTUATION))
    return [token for word in bare.split() for token in _TOKEN.findall(word)]


def _token_f1(answer: str, reference: str) -> float:
    found, wanted = squad_words(answer), squad_words(reference)
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def labels_of(references: Sequence[str]) -> list[str]:
    """The labels of a labelled set, each as its words, sorted; empty when the set is not labelled.

    Labelled are references of which there are few: 2 to MAX_LABELS distinct ones, each used twice on average.
    """
    distinct = sorted({_label(reference) for reference in references})
    labelled = 2 <= len(distinct) <= min(MAX_LABELS, len(references) // 2) and all(distinct)
    return distinct if labelled else []


def accuracy(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> float:
    """Share of answers whose label is that of the reference.

    The label of an answer is the longest of `labels` with which it begins, word by word, in any case and punctuation;
    an answer without one is wrong.
    """
    pairs = zip(answers, references, strict=True)
    return sum(_read_label(answer, labels) == _label(reference) for answer, reference in pairs) / len(references)


def _label(text: str) -> str:
    return " ".join(Words().tokenize(text))


def _read_label(answer: str, labels: Sequence[str]) -> str | None:
    said = _label(answer) + " "
    return max((label for label in labels if said.startswith(label + " ")), key=len, default=None)


def _spaced(text: str) -> str:
    return _UNSPACED_CHARACTER.sub(r" \1 ", unicodedata.normalize("NFC", text))


TEXT_FIGURES: Mapping[MetricName, Callable[[Sequence[str], Sequence[str]], float]] = {
    MetricName.ROUGE_1: rouge_1,
    MetricName.ROUGE_2: rouge_2,
    MetricName.ROUGE_L: rouge_l,
    MetricName.BLEU: bleu,
    MetricName.EXACT_MATCH: exact_match,
    MetricName.F1: f1,
}
"""Figures of (answers, references) alone; Accuracy needs the labels besides."""
