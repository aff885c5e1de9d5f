"""spec.rollout of an InferenceService: how a new revision takes over, and what it has to show first.

The words are Flagger's: interval, threshold, stepWeight, maxWeight, iterations, metrics with a thresholdRange, mirror.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from tunewright_api.base import Duration, Model, Name, Rule
from tunewright_api.judge import JudgeEndpoint


class Strategy(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    RECREATE = "Recreate"


class RolloutMetric(StrEnum):
    """What is compared between the two revisions. Latencies are milliseconds, rates are percent."""

    ERROR_RATE = "ErrorRate"
    TTFT_P50 = "TTFTP50"
    TTFT_P95 = "TTFTP95"
    TPOT_P95 = "TPOTP95"
    COMPLETION_RATE = "CompletionRate"


class ThresholdRange(Model):
    """The candidate's value must lie in it."""

    cel: ClassVar = (
        Rule("has(self.min) || has(self.max)", "thresholdRange: write min, max or both"),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "thresholdRange: min must not exceed max"),
    )

    min: float | None = Field(default=None, description="Smallest good value.")
    max: float | None = Field(default=None, description="Largest good value.")


class MetricCheck(Model):
    """One thing that the candidate has to show."""

    cel: ClassVar = (
        Rule(
            "has(self.thresholdRange) || has(self.tolerancePercent)",
            "metrics: write thresholdRange (the candidate alone) or tolerancePercent (against the stable revision)",
        ),
    )

    name: RolloutMetric = Field(description="ErrorRate, CompletionRate (percent); TTFTP50, TTFTP95, TPOTP95 (ms).")
    threshold_range: ThresholdRange | None = Field(
        default=None, description="Limits of the candidate's own value, in percent or milliseconds."
    )
    tolerance_percent: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How much worse than the stable revision the candidate may be, in percent of the stable's value.",
    )


class Probe(Model):
    """A question with a known answer, sent to the candidate alone."""

    cel: ClassVar = (
        Rule(
            "[has(self.exact), has(self.regex), has(self.rubric)].filter(x, x).size() == 1",
            "probes: write exactly one of exact, regex and rubric",
        ),
        Rule("!has(self.regex) || ''.matches(self.regex) in [true, false]", "probes.regex is no RE2 expression"),
    )

    name: Name = Field(description="Name of the probe, shown in status.")
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(description="The user's message.")
    exact: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="The answer without surrounding space must be this."
    )
    regex: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None, description="The answer must contain a match of this expression (RE2 syntax)."
    )
    rubric: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        default=None, description="What probes.judge shall look for in the answer."
    )


class Judge(JudgeEndpoint):
    """An OpenAI-compatible endpoint that decides whether an answer meets its rubric."""

    cel: ClassVar = (
        Rule(
            "!self.url.matches('^https?://([^/@]*@|localhost|127[.]|0[.]|169[.]254[.]|.?::)')",
            "judge.url must name a host other than the operator's own, without user and password: use secretRef",
        ),
    )


class Probes(Model):
    """Questions that are sent to the candidate at each interval, by the operator, past the traffic of users."""

    cel: ClassVar = (
        Rule(
            "has(self.judge) == self.prompts.exists(p, has(p.rubric))",
            "probes.judge and a prompt with a rubric need each other",
        ),
        Rule(
            "!has(self.timeout) || duration(self.timeout) <= duration('5m')",
            "probes.timeout must be at most 5m: a decision waits for the answers",
        ),
    )

    prompts: list[Probe] = Field(
        min_length=1,
        max_length=32,
        description="The questions.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    min_pass_percent: float = Field(default=100, gt=0, le=100, description="Share of the answers that must be right.")
    max_tokens: int = Field(default=64, ge=1, le=4096, description="Longest answer, in tokens.")
    timeout: Duration = Field(default="30s", description="Limit of one answer.")
    judge: Judge | None = Field(default=None, description="Who decides about answers with a rubric.")


# The default of the whole object is checked before its fields have theirs.
_STRATEGY = "(has(self.strategy) ? self.strategy : 'BlueGreen')"
_CANARY_ONLY = ("stepWeight", "steps", "maxWeight", "manualGates")
_JUDGED_ONLY = ("metrics", "probes", "mirror", "mirrorWeight", "iterations")


class Rollout(Model):
    """How a new revision takes over."""

    cel: ClassVar = (
        Rule(
            "!(has(self.steps) && (has(self.stepWeight) || has(self.maxWeight)))",
            "rollout: write either steps, or stepWeight and maxWeight",
        ),
        Rule(
            "!has(self.steps) || self.steps.isSorted() && self.steps.all(i, self.steps.exists_one(j, j == i))",
            "rollout.steps: write each weight once, from the smallest to the largest, such as [5, 20, 50]",
        ),
        Rule(
            "!has(self.stepWeight) || !has(self.maxWeight) || self.stepWeight <= self.maxWeight",
            "rollout.stepWeight must not exceed maxWeight",
        ),
        Rule(
            f"{_STRATEGY} == 'Canary' || !(" + " || ".join(f"has(self.{name})" for name in _CANARY_ONLY) + ")",
            f"rollout.{', '.join(_CANARY_ONLY)} are for strategy Canary",
        ),
        Rule(
            f"{_STRATEGY} != 'Recreate' || !(" + " || ".join(f"has(self.{name})" for name in _JUDGED_ONLY) + ")",
            f"rollout.{', '.join(_JUDGED_ONLY)} need two revisions side by side: use strategy Canary or BlueGreen",
        ),
        Rule(
            f"{_STRATEGY} != 'Recreate' || !has(self.autoPromote) || self.autoPromote",
            "rollout.autoPromote: false needs Canary or BlueGreen",
        ),
        Rule(
            f"{_STRATEGY} != 'BlueGreen' || !has(self.metrics) || size(self.metrics) == 0 || "
            "has(self.mirror) && self.mirror",
            "rollout.metrics with strategy BlueGreen need mirror: true, since before the switch the candidate gets no "
            "requests",
        ),
        Rule(f"{_STRATEGY} == 'BlueGreen' || !has(self.iterations)", "rollout.iterations is for strategy BlueGreen"),
        Rule("!has(self.mirrorWeight) || has(self.mirror) && self.mirror", "rollout.mirrorWeight needs mirror: true"),
    )

    strategy: Strategy = Field(
        default=Strategy.BLUE_GREEN,
        description="Canary: traffic moves in steps. BlueGreen: all at once, after all pods of the new revision are "
        "ready. Recreate: the old pods go first, for GPUs that are not there twice.",
    )
    interval: Duration = Field(default="60s", description="Time between two checks, and the window that they look at.")
    threshold: int = Field(default=1, ge=1, le=100, description="Failed checks after which the rollout is undone.")
    inconclusive_limit: int = Field(
        default=30,
        ge=1,
        le=1000,
        description="Checks without enough traffic, or without an answer of Prometheus, after which the rollout is "
        "undone.",
    )
    step_weight: int | None = Field(
        default=None, ge=1, le=100, description="Percent of the traffic that each step adds; 10 if absent."
    )
    max_weight: int | None = Field(
        default=None, ge=1, le=100, description="Percent after which the candidate takes all; 50 if absent."
    )
    steps: list[Annotated[int, Field(ge=1, le=100)]] | None = Field(
        default=None, min_length=1, max_length=32, description="The weights one by one, instead of stepWeight."
    )
    iterations: int | None = Field(
        default=None, ge=1, le=100, description="Checks that must pass before BlueGreen switches; 1 if absent."
    )
    metrics: list[MetricCheck] | None = Field(
        default=None,
        max_length=16,
        description="What is measured at each check. If absent, Canary takes ErrorRate up to 1 percent and, against "
        "the stable revision, CompletionRate down to 5 percent below, TTFTP95 and TPOTP95 up to 50 percent above.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    min_requests: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Requests of the candidate in the window below which a check is inconclusive.",
    )
    probes: Probes | None = Field(default=None, description="Questions with known answers, asked at each check.")
    mirror: bool | None = Field(
        default=None, description="First send the candidate copies of requests, whose answers are thrown away."
    )
    mirror_weight: int | None = Field(
        default=None, ge=1, le=100, description="Percent of the requests that are copied; 100 if absent."
    )
    manual_gates: list[Annotated[int, Field(ge=0, le=100)]] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Weights at which the rollout waits for `tunewright resume`; 0 is before the first request.",
    )
    auto_promote: bool = Field(
        default=True, description="false: after the last good check wait for `tunewright promote`."
    )
    progress_deadline: Duration = Field(
        default="60m", description="Time in which the pods of the new revision must become ready."
    )
