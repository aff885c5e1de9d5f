"""What one model can do, and both beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_api.evaluation import Evaluation, MetricName, Sample
from tunewright_api.names import ExitCode
from tunewright_api.results import EvaluateResult, MetricPair, TaskPair
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.data.tokens import ChatEncoder
from tunewright_trainer.errors import StageError
from tunewright_trainer.evaluation.answers import Answerer, load_tokenizer, measure_speed
from tunewright_trainer.evaluation.harness import TaskScore, run_tasks
from tunewright_trainer.evaluation.judge import Case, score_answers
from tunewright_trainer.evaluation.loss import evaluate_loss, perplexity
from tunewright_trainer.evaluation.text import MAX_LABELS, TEXT_FIGURES, accuracy, labels_of

_OF_LOSS = frozenset({MetricName.LOSS, MetricName.PERPLEXITY})
_OF_ANSWERS = frozenset({*TEXT_FIGURES, MetricName.ACCURACY, MetricName.JUDGE_SCORE})
_OF_SPEED = frozenset({MetricName.ANSWER_SECONDS_P50, MetricName.ANSWER_SECONDS_P95, MetricName.TOKENS_PER_SECOND})


@dataclass(frozen=True)
class Material:
    """What both models are asked.

    Attributes:
        records: Held-out records to evaluate.
        labels: Labels of all held-out records, for Accuracy.
        general: Records of evaluation.general; empty without it.
        harness: Directory of evaluation.harness.
        encoder: Renders prompts as the served model sees them.
        base: Directory of the base model.
        seed: Of the harness, which draws its examples.
    """

    records: Sequence[PreparedRecord]
    labels: Sequence[str]
    general: Sequence[PreparedRecord]
    harness: Path | None
    encoder: ChatEncoder
    base: Path
    seed: int

    @property
    def references(self) -> list[str]:
        """The answers that the records have."""
        return [record.answer for record in self.records]


@dataclass(frozen=True)
class Measured:
    """One model: its figures, its answers to the sample prompts, and its scores in the harness."""

    figures: Mapping[MetricName, float]
    samples: Sequence[str]
    tasks: Sequence[TaskScore] = ()


def labels_for(evaluation: Evaluation, held_out: Sequence[PreparedRecord]) -> list[str]:
    """The labels that Accuracy tells apart; empty where it is not asked for.

    Raises:
        StageError: INVALID_CONFIG when it is asked for and the records are not labelled.
    """
    if MetricName.ACCURACY not in evaluation.wanted:
        return []
    references = [record.answer for record in held_out]
    labels = labels_of(references)
    if not labels:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"evaluation.metrics: Accuracy needs a labelled set, 2 to {MAX_LABELS} distinct answers with two records "
            f"each on average, and the {len(references)} held-out records have {len(set(references))}: use ExactMatch "
            "or F1, or raise dataset.validationPercent",
        )
    return labels


def measure(model: Any, material: Material, evaluation: Evaluation) -> Measured:
    """Every figure that is wanted of one model. What needs answers generates each once."""
    wanted = set(evaluation.wanted)
    figures: dict[MetricName, float] = {}
    if wanted & _OF_LOSS:
        loss = evaluate_loss(model, material.records)
        figures |= {MetricName.LOSS: loss, MetricName.PERPLEXITY: perplexity(loss)}
    if evaluation.general:
        figures[MetricName.GENERAL_LOSS] = evaluate_loss(model, material.general)
    answerer = Answerer(model, load_tokenizer(material.base), evaluation.max_new_tokens)
    prompts = [material.encoder.encode_prompt(record.prompt) for record in material.records]
    asked = prompts if wanted & _OF_ANSWERS else []
    samples = [
        material.encoder.encode_prompt([{"role": "user", "content": text}]) for text in evaluation.sample_prompts or []
    ]
    texts = answerer.answer([*asked, *samples])
    if asked:
        figures |= _judge_answers(texts[: len(asked)], material, evaluation)
    if wanted & _OF_SPEED:
        speed = measure_speed(answerer.answer_alone, prompts)
        figures |= {
            MetricName.ANSWER_SECONDS_P50: speed.p50,
            MetricName.ANSWER_SECONDS_P95: speed.p95,
            MetricName.TOKENS_PER_SECOND: speed.tokens_per_second,
        }
    tasks: list[TaskScore] = []
    if evaluation.harness and material.harness:
        tasks = run_tasks(evaluation.harness, material.harness, model, answerer.tokenizer, seed=material.seed)
        figures[MetricName.HARNESS_SCORE] = sum(task.value for task in tasks) / len(tasks)
    return Measured(figures, [text.strip() for text in texts[len(asked) :]], tasks)


def compare(base: Measured, tuned: Measured, records: int, evaluation: Evaluation) -> EvaluateResult:
    """Pair figures, samples and tasks of both models. Pure."""
    before, after = dict(base.figures), dict(tuned.figures)
    if MetricName.GENERAL_LOSS in before:
        before[MetricName.FORGETTING_LOSS] = 0.0
        after[MetricName.FORGETTING_LOSS] = after[MetricName.GENERAL_LOSS] - before[MetricName.GENERAL_LOSS]
    return EvaluateResult(
        records=records,
        metrics=[
            MetricPair(metric=name, base=round(before[name], 6), tuned=round(after[name], 6))
            for name in evaluation.wanted
        ],
        samples=[
            Sample(prompt=prompt, base=said, tuned=says)
            for prompt, said, says in zip(evaluation.sample_prompts or [], base.samples, tuned.samples, strict=True)
        ],
        tasks=[
            TaskPair(task=was.task, metric=was.metric, base=round(was.value, 6), tuned=round(now.value, 6))
            for was, now in zip(base.tasks, tuned.tasks, strict=True)
        ],
    )


def _judge_answers(answers: Sequence[str], material: Material, evaluation: Evaluation) -> dict[MetricName, float]:
    wanted, references = set(evaluation.wanted), material.references
    figures = {name: compute(answers, references) for name, compute in TEXT_FIGURES.items() if name in wanted}
    if MetricName.ACCURACY in wanted:
        figures[MetricName.ACCURACY] = accuracy(answers, references, material.labels)
    if evaluation.judge:
        cases = [
            Case(_question(record), record.answer, answer)
            for record, answer in zip(material.records, answers, strict=True)
        ]
        figures[MetricName.JUDGE_SCORE] = score_answers(evaluation.judge, cases[: evaluation.judge.max_records])
    return figures


def _question(record: PreparedRecord) -> str:
    """The conversation before the answer; a single message without its role."""
    if len(record.prompt) == 1:
        return record.prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in record.prompt)
