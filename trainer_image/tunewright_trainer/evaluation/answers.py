"""Greedy answers of a model, as the served model gives them, and how fast they come."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_trainer.evaluation.loss import batches

TIMED_ANSWERS = 20
"""Answers of which the time is taken; the mean of as many is steady, and each is generated alone."""

TOKENS = 8192
"""Tokens of a batch, prompts and answers: 32 conversations of 256, fewer of longer ones. They fill the KV cache; logits
are those of the last position alone."""


class Answerer:
    """A model and the tokenizer of its base (`load_tokenizer`)."""

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._ends = end_tokens(model.generation_config.eos_token_id, tokenizer.eos_token_id)
        own = tokenizer.pad_token_id
        self._pad = own if own is not None else next(iter(self._ends), 0)

    def answer(self, prompts: Sequence[list[int]]) -> list[str]:
        """Greedy answers to token sequences, in their order."""
        answers = [""] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        lengths = [len(prompts[index]) + self._max_new_tokens for index in by_length]
        for start, end in batches(lengths, TOKENS):
            indices = by_length[start:end]
            output = self._generate([prompts[index] for index in indices])
            texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
        return answers

    def answer_alone(self, prompt: list[int]) -> int:
        """Generate the answer to one prompt; the number of its tokens, the end token included."""
        (tokens,) = self._generate([prompt])
        return len(tokens)

    def _generate(self, prompts: Sequence[list[int]]) -> Any:
        """New token ids, shape (rows, longest answer); prompts are padded on the left."""
        import torch

        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[self._pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                eos_token_id=self._ends or None,
                pad_token_id=self._pad,
            )
        return output[:, longest:].cpu()


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a model directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def end_tokens(*settings: int | list[int] | None) -> list[int]:
    """All token ids that end an answer: vLLM stops at the tokenizer's one and at those of the generation settings."""
    ids: set[int] = set()
    for setting in settings:
        if setting is not None:
            ids.update(setting if isinstance(setting, list) else [setting])
    return sorted(ids)


@dataclass(frozen=True)
class Speed:
    """How fast answers come, one at a time.

    Attributes:
        p50: Median time of an answer, in seconds.
        p95: 95th percentile of it.
        tokens_per_second: Tokens of all answers over their time.
    """

    p50: float
    p95: float
    tokens_per_second: float


def measure_speed(
    answer: Callable[[list[int]], int],
    prompts: Sequence[list[int]],
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time the answers to the first TIMED_ANSWERS prompts, after one that warms up.

    Args:
        answer: Generates the answer to a prompt and tells its tokens.
        prompts: Token sequences, at least one.
        clock: Seconds.
    """
    answer(prompts[0])
    times, tokens = [], 0
    for prompt in prompts[:TIMED_ANSWERS]:
        began = clock()
        tokens += answer(prompt)
        times.append(clock() - began)
    return Speed(percentile(times, 50), percentile(times, 95), tokens / sum(times))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, linear between neighbours (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    below, above = math.floor(rank), math.ceil(rank)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)
