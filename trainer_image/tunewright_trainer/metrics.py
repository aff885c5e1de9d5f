"""Figures on the held-out records. Pure but for the imported ROUGE implementation."""

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from tunewright_api.evaluation import MetricName

MAX_PERPLEXITY = 1e30
"""exp(loss) of a broken model overflows; JSON has no infinity."""

_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # CJK
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_TOKEN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")


def perplexity(loss: float) -> float:
    """exp of the mean negative log-likelihood per token."""
    return math.exp(loss) if loss < math.log(MAX_PERPLEXITY) else MAX_PERPLEXITY


def normalise(text: str) -> str:
    """White space runs become one space, the ends none."""
    return " ".join(text.split())


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


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F1 (Lin 2004): longest common subsequence of words, without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    pairs = zip(answers, references, strict=True)
    return sum(float(scorer.score(r, a)["rougeL"].fmeasure) for a, r in pairs) / len(references)


def figures(loss: float, answers: Sequence[str], references: Sequence[str]) -> dict[MetricName, float]:
    """All figures of one model."""
    return {
        MetricName.LOSS: loss,
        MetricName.PERPLEXITY: perplexity(loss),
        MetricName.ROUGE_L: rouge_l(answers, references),
        MetricName.EXACT_MATCH: exact_match(answers, references),
    }
