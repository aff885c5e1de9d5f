"""The page of a run: one HTML file that needs nothing else. Pure but for the libraries that draw and fill in."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright_api.results import EvaluateResult, TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.report.curves import curves_svg
from tunewright_trainer.report.template import PAGE
from tunewright_trainer.steps import StepRecord

_SAME = 5e-7
"""Figures are rounded to six digits: a smaller difference is none."""
_NO_NUMBER = "no number"
_NAMES = {"p95": "95th percentile", "heldOutWithTrainedPrompt": "held out, with a prompt that is also trained"}
"""Names of report.json that are no words."""


@dataclass(frozen=True)
class Findings:
    """What the stages of a run left behind; what is missing is left out of the page.

    Attributes:
        config: The job.
        steps: Its optimizer steps.
        elapsed: Seconds from the beginning of the first step to the end of the last, whatever came between them.
        trained: How training ended.
        evaluation: Figures and samples.
        statistics: What the data is like, by name; nested. `lengths` has records by length in tokens.
        examples: Training records as text: {line, tokens, segments: [{text, counted}]}.
        environment: What it ran on, by name.
    """

    config: TrainerConfig
    steps: Sequence[StepRecord] = ()
    elapsed: float | None = None
    trained: TrainResult | None = None
    evaluation: EvaluateResult | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A line of the evaluation's table."""

    name: str
    base: str
    tuned: str
    change: str
    tone: str
    gate: str = ""
    passed: bool = False


def render_page(findings: Findings) -> str:
    """The HTML."""
    from jinja2 import Environment

    config, evaluation = findings.config, findings.evaluation
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["number"] = _number
    template = environment.from_string(PAGE)
    lengths = findings.statistics.get("lengths", {})
    most = max([1, *lengths.values()])
    return template.render(
        title=f"{config.job.namespace}/{config.job.name}",
        lead=_lead(findings),
        records=evaluation.records if evaluation else 0,
        figures=list(figures(config, evaluation)) if evaluation else [],
        tasks=evaluation.tasks if evaluation else [],
        curves=curves_svg(findings.steps) if findings.steps else "",
        statistics=list(_flatten({name: value for name, value in findings.statistics.items() if name != "lengths"})),
        lengths=[(length, count, 100 * count / most) for length, count in lengths.items()],
        examples=findings.examples,
        samples=evaluation.samples if evaluation else [],
        configuration=json.dumps(config.to_dict(), indent=2, ensure_ascii=False),
        environment=findings.environment,
    )


def figures(config: TrainerConfig, evaluation: EvaluateResult) -> Iterable[Figure]:
    """Every figure of both models, whether that is better, and the gate on it."""
    gates = {gate.metric: gate for gate in config.evaluation.gates or ()}
    for pair in evaluation.metrics:
        difference = pair.tuned - pair.base
        change, tone = _judge(difference, better=(difference > 0) == pair.metric.higher_is_better)
        gate = gates.get(pair.metric)
        yield Figure(
            name=pair.metric.value,
            base=_number(pair.base),
            tuned=_number(pair.tuned),
            change=change,
            tone=tone,
            gate=gate.bound if gate else "",
            passed=gate.keeps(pair.tuned) if gate else False,
        )


def _judge(difference: float, *, better: bool) -> tuple[str, str]:
    """(what to say of the tuned model's figure minus the base model's, its tone)."""
    if not math.isfinite(difference):
        return _NO_NUMBER, "bad"
    if abs(difference) < _SAME:
        return "the same", ""
    return f"{difference:+.4g}, {'better' if better else 'worse'}", "good" if better else "bad"


def _lead(findings: Findings) -> str:
    parts = [f"from {findings.config.model.uri}"]
    if trained := findings.trained:
        parts.append(f"{trained.steps} optimizer steps in {_duration(trained.seconds)}")
        if findings.elapsed and findings.elapsed > trained.seconds + max(1.0, 0.05 * trained.seconds):
            parts.append(f"{_duration(findings.elapsed)} with evaluations and interruptions")
        if trained.loss is not None:
            parts.append(f"last training loss {_number(trained.loss)}")
    return " · ".join(parts)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else _NO_NUMBER


def _duration(seconds: float) -> str:
    """9.5 s, 85 s, 12 min or 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _words(key: str) -> str:
    """`heldOut`: held out."""
    return _NAMES.get(key) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """(name, text) of numbers and texts, nested ones with their path; lists of objects are not for a table."""
    for key, value in values.items():
        name = f"{prefix}{_words(key)}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}: ")
        elif isinstance(value, list):
            if not any(isinstance(entry, (list, Mapping)) for entry in value):
                yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)
