"""The page of a run: one HTML file that needs nothing else. Pure but for the libraries that draw and fill in."""

import json
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


@dataclass(frozen=True)
class Findings:
    """What the stages of a run left behind; what is missing is left out of the page.

    Attributes:
        config: The job.
        steps: Its optimizer steps.
        trained: How training ended.
        evaluation: Figures and samples.
        statistics: What the data is like, by name; nested.
        examples: Training records as text: {line, tokens, segments: [{text, counted}]}.
        environment: What it ran on, by name.
    """

    config: TrainerConfig
    steps: Sequence[StepRecord] = ()
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
    template = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    return template.render(
        title=f"{config.job.namespace}/{config.job.name}",
        lead=_lead(findings),
        records=evaluation.records if evaluation else 0,
        figures=list(figures(config, evaluation)) if evaluation else [],
        tasks=evaluation.tasks if evaluation else [],
        curves=curves_svg(findings.steps) if findings.steps else "",
        statistics=list(_flatten(findings.statistics)),
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
        better = (difference > 0) == pair.metric.higher_is_better
        same = abs(difference) < _SAME
        gate = gates.get(pair.metric)
        yield Figure(
            name=pair.metric.value,
            base=f"{pair.base:.4g}",
            tuned=f"{pair.tuned:.4g}",
            change="the same" if same else f"{difference:+.4g}, {'better' if better else 'worse'}",
            tone="" if same else "good" if better else "bad",
            gate=gate.bound if gate else "",
            passed=gate.keeps(pair.tuned) if gate else False,
        )


def _lead(findings: Findings) -> str:
    parts = [f"from {findings.config.model.uri}"]
    if trained := findings.trained:
        parts.append(f"{trained.steps} optimizer steps in {trained.seconds:.0f} s")
        if trained.loss is not None:
            parts.append(f"last training loss {trained.loss:.4g}")
    return " · ".join(parts)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """(name, text) of numbers and texts, nested ones with their path; lists of objects are not for a table."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        elif isinstance(value, list):
            if not any(isinstance(entry, (list, Mapping)) for entry in value):
                yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)
