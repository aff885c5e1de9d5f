"""What one model can do, and both beside each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunewright_api.evaluation import Evaluation, EvaluationJudge, MetricName, Sample
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
class Plan:
    """What can be computed on the held-out records.

    Attributes:
        figures: The figures, in the order of MetricName.
        labels: What Accuracy tells apart; empty where it is not asked for.
    """

    figures: Sequence[MetricName]
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Material:
    """What both models are asked.

    Attributes:
        plan: What is computed.
        records: Held-out records to evaluate.
        general: Records of evaluation.general; empty without it.
        harness: Directory of evaluation.harness.
        encoder: Renders prompts as the served model sees them.
        base: Directory of the base model.
        seed: Of the harness, which draws its examples.
    """

    plan: Plan
    records: Sequence[PreparedRecord]
    general: Sequence[PreparedRecord]
    harness: Path | None
    encoder: ChatEncoder
    base: Path
    seed: int

    @property
    def conversations(self) -> list[PreparedRecord]:
        """The records with a question and an answer: those of the format Text have neither."""
        return [record for record in self.records if record.messages]


@dataclass(frozen=True)
class Measured:
    """One model: its figures, its answers to the sample prompts, its scores in the harness, and what a judge reads.

    Attributes:
        answers: To the conversations of the records, in their order; empty where no figure needs them.
    """

    figures: dict[MetricName, float]
    samples: Sequence[str]
    tasks: Sequence[TaskScore] = ()
    answers: Sequence[str] = ()


def plan_figures(evaluation: Evaluation, held_out: Sequence[PreparedRecord]) -> Plan:
    """The figures to compute. Prepare asks for the plan too, so that what is impossible is told before training.

    Raises:
        StageError: INVALID_CONFIG when a figure is asked for that these records cannot give.
    """
    asked = {*(evaluation.metrics or ()), *(gate.metric for gate in evaluation.gates or ())}
    if any(record.messages for record in held_out):
        if MetricName.ACCURACY not in asked:
            return Plan(evaluation.wanted)
        return Plan(evaluation.wanted, _labels([record.answer for record in held_out if record.messages]))
    possible = [name for name in evaluation.wanted if name not in _OF_ANSWERS | _OF_SPEED]
    impossible = [name.value for name in evaluation.wanted if name in asked and name not in possible]
    if impossible or evaluation.judge:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"evaluation: {', '.join(impossible) or 'a judge'} needs questions and answers, and records of the format "
            "Text have none: ask for Loss, Perplexity, GeneralLoss, ForgettingLoss or HarnessScore",
        )
    return Plan(possible)


def _labels(references: Sequence[str]) -> list[str]:
    labels = labels_of(references)
    if labels:
        return labels
    raise StageError(
        ExitCode.INVALID_CONFIG,
        f"evaluation.metrics: Accuracy needs a labelled set, 2 to {MAX_LABELS} distinct answers with two records each "
        f"on average, and the {len(references)} held-out records have {len(set(references))}: use ExactMatch or F1, or "
        "raise dataset.validationPercent",
    )


def measure(model: Any, material: Material, evaluation: Evaluation) -> Measured:
    """Every figure of the plan of one model but that of the judge. What needs answers generates each once."""
    wanted = set(material.plan.figures)
    figures: dict[MetricName, float] = {}
    if wanted & _OF_LOSS:
        loss = evaluate_loss(model, material.records)
        figures |= {MetricName.LOSS: loss, MetricName.PERPLEXITY: perplexity(loss)}
    if evaluation.general:
        figures[MetricName.GENERAL_LOSS] = evaluate_loss(model, material.general)
    answerer = Answerer(model, load_tokenizer(material.base), evaluation.max_new_tokens)
    conversations = material.conversations if wanted & (_OF_ANSWERS | _OF_SPEED) else []
    prompts = [material.encoder.encode_prompt(record.prompt) for record in conversations]
    asked = prompts if wanted & _OF_ANSWERS else []
    samples = [
        material.encoder.encode_prompt([{"role": "user", "content": text}]) for text in evaluation.sample_prompts or []
    ]
    texts = answerer.answer([*asked, *samples])
    if asked:
        figures |= _compare_answers(texts[: len(asked)], conversations, material.plan)
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
    return Measured(figures, [text.strip() for text in texts[len(asked) :]], tasks, texts[: len(asked)])


def judged(measured: Measured, material: Material, judge: EvaluationJudge) -> Measured:
    """With the judge's score. No model is needed, so a judge that fails costs no answer."""
    cases = [
        Case(_question(record), record.answer, answer)
        for record, answer in zip(material.conversations, measured.answers, strict=True)
    ]
    score = score_answers(judge, cases[: judge.max_records])
    return replace(measured, figures={**measured.figures, MetricName.JUDGE_SCORE: score})


def refuse_no_numbers(name: str, figures: Mapping[MetricName, float]) -> None:
    """A figure that is no number is neither good nor bad, and JSON has none.

    Raises:
        StageError: DIVERGED for the tuned model, INPUT_NOT_READABLE for the base.
    """
    broken = [f"{metric.value} is {value}" for metric, value in figures.items() if not math.isfinite(value)]
    if broken and name == "base":
        raise StageError(
            ExitCode.INPUT_NOT_READABLE, f"baseModel: {', '.join(broken)}: its weights are damaged, copy them again"
        )
    if broken:
        raise StageError(
            ExitCode.DIVERGED,
            f"the tuned model's {', '.join(broken)}: lower hyperparameters.learningRate, or use precision BF16 or FP32",
        )


def compare(base: Measured, tuned: Measured, records: int, evaluation: Evaluation) -> EvaluateResult:
    """Pair figures, samples and tasks of both models. Pure."""
    wanted = set(evaluation.wanted)
    before, after = dict(base.figures), dict(tuned.figures)
    if MetricName.GENERAL_LOSS in before:
        before[MetricName.FORGETTING_LOSS] = 0.0
        after[MetricName.FORGETTING_LOSS] = after[MetricName.GENERAL_LOSS] - before[MetricName.GENERAL_LOSS]
    return EvaluateResult(
        records=records,
        metrics=[
            MetricPair(metric=name, base=round(before[name], 6), tuned=round(after[name], 6))
            for name in MetricName
            if name in before and name in wanted
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


def _compare_answers(answers: Sequence[str], records: Sequence[PreparedRecord], plan: Plan) -> dict[MetricName, float]:
    wanted, references = set(plan.figures), [record.answer for record in records]
    figures = {name: compute(answers, references) for name, compute in TEXT_FIGURES.items() if name in wanted}
    if MetricName.ACCURACY in wanted:
        figures[MetricName.ACCURACY] = accuracy(answers, references, plan.labels)
    return figures


def _question(record: PreparedRecord) -> str:
    """The conversation before the answer; a single message without its role."""
    if len(record.prompt) == 1:
        return record.prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in record.prompt)
