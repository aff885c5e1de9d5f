"""What many answers say about a server. Pure.

TTFT: from the request to the first piece. TPOT: from the first piece to the end, by the further tokens.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

QUANTILES = (50, 95, 99)


class Sample(NamedTuple):
    """One request; times in seconds since the run began. `first` is None without a piece, `error` empty when whole."""

    started: float
    first: float | None
    ended: float
    tokens: int
    error: str = ""


def percentile(values: Sequence[float], quantile: float) -> float | None:
    """The smallest value that at least this share (percent) of the values does not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(ceil(len(ordered) * quantile / 100), 1) - 1]


def ttft(sample: Sample) -> float | None:
    """Milliseconds to the first piece."""
    return None if sample.first is None else (sample.first - sample.started) * 1000


def tpot(sample: Sample) -> float | None:
    """Milliseconds per further token; None for an answer of one token."""
    if sample.first is None or sample.tokens < 2:
        return None
    return (sample.ended - sample.first) * 1000 / (sample.tokens - 1)


def speed(sample: Sample) -> float | None:
    """Tokens per second of one answer, from its request to its end."""
    took = sample.ended - sample.started
    return sample.tokens / took if sample.tokens and took > 0 else None


def report(samples: Sequence[Sample], concurrency: int) -> dict[str, Any]:
    """All figures, as `bench -o json` prints them. Only whole answers count for times and speeds."""
    whole = [sample for sample in samples if not sample.error]
    took = max((sample.ended for sample in samples), default=0.0) - min((s.started for s in samples), default=0.0)
    tokens = sum(sample.tokens for sample in whole)
    return {
        "requests": len(samples),
        "errors": len(samples) - len(whole),
        "concurrency": concurrency,
        "seconds": round(took, 3),
        "requestsPerSecond": round(len(whole) / took, 3) if took > 0 else None,
        "outputTokens": tokens,
        "outputTokensPerSecond": round(tokens / took, 2) if took > 0 else None,
        "ttftMilliseconds": _quantiles([ttft(sample) for sample in whole]),
        "tpotMilliseconds": _quantiles([tpot(sample) for sample in whole]),
        # Slow answers are the low ones: p95 is what 95 percent of the answers are at least as fast as.
        "tokensPerSecondPerRequest": _quantiles([speed(sample) for sample in whole], falling=True),
        "errorKinds": _kinds(samples),
    }


def _quantiles(values: Sequence[float | None], *, falling: bool = False) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    sign = -1 if falling else 1
    found = {quantile: percentile([sign * value for value in known], quantile) for quantile in QUANTILES}
    return {f"p{quantile}": None if value is None else round(sign * value, 2) for quantile, value in found.items()}


def _kinds(samples: Sequence[Sample]) -> dict[str, int]:
    """How often each error was seen, the most frequent first."""
    counts: dict[str, int] = {}
    for sample in samples:
        if sample.error:
            counts[sample.error] = counts.get(sample.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
