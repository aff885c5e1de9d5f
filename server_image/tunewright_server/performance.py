"""Speed of one streamed answer, from the times at which its tokens came. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_api.results import ServerPerformance

TOKENS = 32


@dataclass(frozen=True)
class Arrival:
    """At this time (seconds of a monotonic clock) this many tokens of the answer had come."""

    at: float
    tokens: int


def answer_length(max_model_len: int | None) -> int:
    """Tokens to ask for: fewer where the context is so short that the prompt would not fit beside them."""
    return TOKENS if max_model_len is None else min(TOKENS, max_model_len // 2)


def measure(asked_at: float, arrivals: Sequence[Arrival]) -> ServerPerformance | None:
    """TTFT, TPOT (the time between the first and the last arrival per token between them) and tokens per second.

    None when fewer than two arrivals say nothing about the time between tokens.
    """
    if len(arrivals) < 2:
        return None
    first, last = arrivals[0], arrivals[-1]
    further = last.tokens - first.tokens
    if further <= 0 or last.at <= asked_at:
        return None
    return ServerPerformance(
        ttft_milliseconds=round((first.at - asked_at) * 1000, 2),
        tpot_milliseconds=round((last.at - first.at) * 1000 / further, 2),
        tokens_per_second=round(last.tokens / (last.at - asked_at), 2),
    )
