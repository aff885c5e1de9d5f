"""Figures on the held-out records. Pure but for the imported ROUGE implementation."""

import math
from collections.abc import Sequence

from tunewright_api.finetunejob import MetricName

MAX_PERPLEXITY = 1e30
"""exp(loss) of a broken model overflows; JSON has no infinity."""


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


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F1 (Lin 2004): longest common subsequence of words, without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
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
