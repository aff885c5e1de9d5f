"""How base and tuned model are compared: spec.evaluation of a FineTuneJob, and the figures that come of it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    LongText,
    Model,
    Rule,
    StatusModel,
    Text,
)
from tunewright_api.dataset import DatasetFormat
from tunewright_api.judge import JudgeEndpoint
from tunewright_api.uris import PvcUri


class MetricName(StrEnum):
    """A figure of one model. See docs/reference/evaluation.md for each definition."""

    LOSS = "Loss"
    PERPLEXITY = "Perplexity"
    ROUGE_1 = "Rouge1"
    ROUGE_2 = "Rouge2"
    ROUGE_L = "RougeL"
    BLEU = "Bleu"
    EXACT_MATCH = "ExactMatch"
    F1 = "F1"
    ACCURACY = "Accuracy"
    JUDGE_SCORE = "JudgeScore"
    GENERAL_LOSS = "GeneralLoss"
    FORGETTING_LOSS = "ForgettingLoss"
    HARNESS_SCORE = "HarnessScore"
    ANSWER_SECONDS_P50 = "AnswerSecondsP50"
    ANSWER_SECONDS_P95 = "AnswerSecondsP95"
    TOKENS_PER_SECOND = "TokensPerSecond"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        return self not in _LOWER_IS_BETTER


DEFAULT_METRICS = (MetricName.LOSS, MetricName.PERPLEXITY, MetricName.ROUGE_L, MetricName.EXACT_MATCH)
_LOWER_IS_BETTER = frozenset(
    {
        MetricName.LOSS,
        MetricName.PERPLEXITY,
        MetricName.GENERAL_LOSS,
        MetricName.FORGETTING_LOSS,
        MetricName.ANSWER_SECONDS_P50,
        MetricName.ANSWER_SECONDS_P95,
    }
)
# Part of spec.evaluation -> the figures that only it makes possible.
_FIGURES_OF = {
    "judge": (MetricName.JUDGE_SCORE,),
    "general": (MetricName.GENERAL_LOSS, MetricName.FORGETTING_LOSS),
    "harness": (MetricName.HARNESS_SCORE,),
}


class Gate(Model):
    """A bound that the tuned model must keep."""

    cel: ClassVar = (Rule("has(self.min) != has(self.max)", "gates: write exactly one of min and max for each metric"),)

    metric: MetricName = Field(description="The figure; it is measured even if evaluation.metrics leaves it out.")
    min: float | None = Field(default=None, description="The value must be at least this.")
    max: float | None = Field(default=None, description="The value must be at most this.")

    @property
    def bound(self) -> str:
        """`>= 0.5` or `<= 1.5`."""
        return f">= {self.min:g}" if self.min is not None else f"<= {self.max:g}"

    def keeps(self, value: float) -> bool:
        """Whether the value is within the bound."""
        return value >= self.min if self.min is not None else value <= (self.max or 0.0)


class EvaluationJudge(JudgeEndpoint):
    """An OpenAI-compatible endpoint that scores each answer from 1 to 5 by a rubric."""

    cel: ClassVar = (
        Rule(
            "!self.url.matches('^https?://[^/]*@')",
            "evaluation.judge.url must have no user and password: use secretRef",
        ),
    )

    rubric: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="What a good answer is: what deserves 5, and what 1."
    )
    max_records: int = Field(
        default=50, ge=1, le=10_000, description="Evaluated records to score at most, with one request per model each."
    )


class GeneralSet(Model):
    """Records of what the base model can do already: the loss on them before and after shows what was forgotten."""

    uri: PvcUri = Field(description="JSON Lines file: pvc://CLAIM/PATH/FILE.jsonl.")
    format: DatasetFormat = Field(description="Shape of one line, as in dataset.format.")


class Harness(Model):
    """Tasks of lm-evaluation-harness from a directory: task YAML files with their data beside them, no download."""

    uri: PvcUri = Field(
        description="Directory of the task files: pvc://CLAIM/PATH. Their data_files are relative to it."
    )
    tasks: list[Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")]] = Field(
        min_length=1,
        max_length=8,
        description="Names of the tasks. HarnessScore is the mean of their first metrics.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


def _needs(part: str) -> Rule:
    names = _FIGURES_OF[part]
    listed = "[" + ", ".join(f"'{name}'" for name in names) + "]"
    return Rule(
        f"has(self.{part}) || !((has(self.metrics) && self.metrics.exists(m, m in {listed})) || "
        f"(has(self.gates) && self.gates.exists(g, g.metric in {listed})))",
        f"evaluation: without evaluation.{part} there is no {' and no '.join(names)}: add it, or ask for others",
    )


class Evaluation(Model):
    """How base and tuned model are compared on the held-out records."""

    cel: ClassVar = tuple(_needs(part) for part in _FIGURES_OF)

    max_records: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Held-out records to evaluate at most; of more, hyperparameters.seed picks a random sample.",
    )
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Optimizer steps between two looks at the loss on these records while training; the last step is "
        "always one. None if absent.",
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="Tokens to generate for each record.")
    metrics: list[MetricName] | None = Field(
        default=None,
        min_length=1,
        max_length=len(MetricName),
        description="Figures to compute; Loss, Perplexity, RougeL and ExactMatch if absent. Those of gates, judge, "
        "general and harness are always added. Without one that needs answers, none are generated.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    sample_prompts: list[Annotated[str, StringConstraints(min_length=1, max_length=500)]] | None = Field(
        default=None,
        max_length=5,
        description="Questions that both models answer, for people to read in status.samples.",
    )
    gates: list[Gate] | None = Field(
        default=None,
        max_length=len(MetricName),
        description="Bounds on the tuned model; one that is missed fails the job before anything is exported.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )
    judge: EvaluationJudge | None = Field(default=None, description="Who scores the answers.")
    general: GeneralSet | None = Field(default=None, description="What the model shall not forget.")
    harness: Harness | None = Field(default=None, description="Benchmarks of your own.")

    @property
    def wanted(self) -> tuple[MetricName, ...]:
        """The figures to compute, in the order of MetricName."""
        asked = set(DEFAULT_METRICS if self.metrics is None else self.metrics)
        asked |= {gate.metric for gate in self.gates or ()}
        for part, names in _FIGURES_OF.items():
            asked |= set(names) if getattr(self, part) is not None else set()
        return tuple(name for name in MetricName if name in asked)


class MetricResult(StatusModel):
    """One figure of both models."""

    metric: MetricName = Field(description="Name of the figure.")
    base: float = Field(description="Value of the base model.")
    tuned: float = Field(description="Value of the tuned model.")
    gate: Text | None = Field(default=None, description="The bound asked for, for example <= 1.5.")
    passed: bool | None = Field(default=None, description="Whether the tuned model keeps the bound.")


class Sample(StatusModel):
    """One question and both answers."""

    prompt: LongText = Field(description="The question.")
    base: LongText = Field(description="Answer of the base model.")
    tuned: LongText = Field(description="Answer of the tuned model.")
