"""evaluate: base against tuned model on the held-out records. The operator judges the gates."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_api.evaluation import Evaluation, MetricName, Sample
from tunewright_api.results import EvaluateResult, MetricPair
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data import store
from tunewright_trainer.data.split import sample
from tunewright_trainer.data.tokens import ChatEncoder, load_encoder
from tunewright_trainer.errors import not_readable
from tunewright_trainer.files import write_atomic
from tunewright_trainer.imports import skip
from tunewright_trainer.layout import Layout
from tunewright_trainer.metrics import figures

LOSS_BATCH = 8
GENERATION_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What one model said: its figures, and its answers to the sample prompts."""

    figures: dict[MetricName, float]
    samples: list[str]


def run(config: TrainerConfig) -> EvaluateResult:
    """Evaluate both models and write work/evaluation.json."""
    layout = Layout(config)
    if not layout.trained.is_dir():
        raise not_readable(layout.trained, "it does not exist; run the train stage first")
    held_out = store.read(layout.validation_records)
    records = sample(held_out, config.evaluation.max_records, config.hyperparameters.seed)
    skip("datasets", "deepspeed")
    _limit_threads()
    encoder = load_encoder(layout.base_model)
    answers: dict[str, Answers] = {}
    for name, model in models(config, layout):
        log.info("evaluating", model=name, records=len(records))
        answers[name] = judge(model, records, encoder, layout.base_model, config.evaluation)
    result = compare(answers["base"], answers["tuned"], len(records), config.evaluation)
    write_atomic(layout.evaluation, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    log.info("evaluated", **{pair.metric.value: [pair.base, pair.tuned] for pair in result.metrics})
    return result


def compare(base: Answers, tuned: Answers, records: int, evaluation: Evaluation) -> EvaluateResult:
    """Pair the figures and samples of both models. Pure."""
    return EvaluateResult(
        records=records,
        metrics=[
            MetricPair(metric=name, base=round(base.figures[name], 6), tuned=round(tuned.figures[name], 6))
            for name in MetricName
        ],
        samples=[
            Sample(prompt=prompt, base=before, tuned=after)
            for prompt, before, after in zip(evaluation.sample_prompts or [], base.samples, tuned.samples, strict=True)
        ],
    )


def models(config: TrainerConfig, layout: Layout) -> Iterator[tuple[str, Any]]:
    """("base", model) and ("tuned", model), one at a time; LoRA loads the base once.

    Weights are those that will be served; a CPU computes with them in float32, a GPU in their own dtype.
    """
    base = _load(layout.base_model, layout.base_model)
    yield "base", base
    if config.method.lora is not None:
        from peft import PeftModel

        # Merged, as export does it: generation pays for two small matrices per layer otherwise.
        yield "tuned", PeftModel.from_pretrained(base, str(layout.trained)).merge_and_unload().eval()
    else:
        del base
        yield "tuned", _load(layout.trained, layout.base_model)


def judge(
    model: Any,
    records: Sequence[store.PreparedRecord],
    encoder: ChatEncoder,
    base: Path,
    evaluation: Evaluation,
) -> Answers:
    """Loss on the answers as they are, then the model's own answers to the same prompts and the sample prompts."""
    prompts = [encoder.encode_prompt(record.prompt) for record in records]
    samples = evaluation.sample_prompts or []
    prompts += [encoder.encode_prompt([{"role": "user", "content": text}]) for text in samples]
    texts = generate(model, prompts, evaluation.max_new_tokens, base)
    own, sampled = texts[: len(records)], texts[len(records) :]
    return Answers(
        figures(answer_loss(model, records), own, [record.answer for record in records]),
        [text.strip() for text in sampled],
    )


def answer_loss(model: Any, records: Sequence[store.PreparedRecord]) -> float:
    """Mean negative log-likelihood per assistant token, in nats, over all records."""
    import torch

    from tunewright_trainer.batches import IGNORED, collate, labels

    total, count = 0.0, 0
    ordered = sorted(records, key=lambda record: len(record.ids))
    with torch.inference_mode():
        for rows in _chunks(ordered, LOSS_BATCH):
            batch = collate([{"input_ids": row.ids, "labels": labels(row)} for row in rows])
            batch = {key: value.to(model.device) for key, value in batch.items()}
            targets = batch.pop("labels")[:, 1:]
            logits = model(**batch).logits[:, :-1]
            wanted = targets != IGNORED
            total += torch.nn.functional.cross_entropy(logits[wanted].float(), targets[wanted], reduction="sum").item()
            count += int(wanted.sum())
    return total / count


def generate(model: Any, prompts: Sequence[list[int]], max_new_tokens: int, base: Path) -> list[str]:
    """Greedy answers to token sequences, in their order; batches are padded on the left."""
    import torch

    tokenizer = _tokenizer(base)
    ends = end_tokens(model.generation_config.eos_token_id, tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    answers = [""] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for indices in _chunks(by_length, GENERATION_BATCH):
        longest = max(len(prompts[index]) for index in indices)
        ids = torch.tensor([[pad] * (longest - len(prompts[i])) + prompts[i] for i in indices])
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in indices])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=ends or None,
                pad_token_id=pad,
            )
        texts = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
        for index, text in zip(indices, texts, strict=True):
            answers[index] = text
    return answers


def end_tokens(*settings: int | list[int] | None) -> list[int]:
    """All token ids that end an answer: vLLM stops at the tokenizer's one and at those of the generation settings."""
    ids: set[int] = set()
    for setting in settings:
        if setting is not None:
            ids.update(setting if isinstance(setting, list) else [setting])
    return sorted(ids)


def _load(path: Path, base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto" if cuda else torch.float32, local_files_only=True)
    with contextlib.suppress(OSError):
        # The base's end-of-turn tokens; its sampling defaults do not apply to greedy answers.
        settings = GenerationConfig.from_pretrained(base)
        model.generation_config = GenerationConfig(
            bos_token_id=settings.bos_token_id, eos_token_id=settings.eos_token_id, pad_token_id=settings.pad_token_id
        )
    return model.to("cuda" if cuda else "cpu").eval()


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def _limit_threads() -> None:
    import os

    import torch

    from tunewright_trainer.launch import available_cpus, read_cpu_max

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cpus(len(os.sched_getaffinity(0)), read_cpu_max()))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
