"""Gates: bounds on the figures of the tuned model."""

from collections.abc import Iterable, Sequence

from tunewright_api.evaluation import Gate, MetricResult
from tunewright_api.results import MetricPair
from tunewright_operator.policies.failure import Failure


def judge(metrics: Iterable[MetricPair], gates: Sequence[Gate]) -> tuple[MetricResult, ...]:
    """Every figure, with the verdict where there is a gate for it."""
    by_metric = {gate.metric: gate for gate in gates}
    return tuple(_judge_one(pair, by_metric.get(pair.metric)) for pair in metrics)


def gate_failure(results: Sequence[MetricResult], gates: Sequence[Gate]) -> Failure | None:
    """The failure that names every missed gate with its figures; a figure that was not measured misses its gate."""
    by_metric = {result.metric: result for result in results}
    missed = []
    for gate in gates:
        result = by_metric.get(gate.metric)
        if result is None:
            missed.append(f"{gate.metric.value} was not measured (gate {gate.bound})")
        elif not result.passed:
            missed.append(
                f"{gate.metric.value} is {result.tuned:.4g} (base model {result.base:.4g}), the gate asks for "
                f"{gate.bound}"
            )
    if not missed:
        return None
    return Failure(
        "GateFailed",
        f"{'; '.join(missed)}. Nothing was exported. What to do: improve the data or the hyperparameters, or move the "
        "gate, in a FineTuneJob with a new name",
    )


def _judge_one(pair: MetricPair, gate: Gate | None) -> MetricResult:
    if gate is None:
        return MetricResult(metric=pair.metric, base=pair.base, tuned=pair.tuned)
    return MetricResult(
        metric=pair.metric, base=pair.base, tuned=pair.tuned, gate=gate.bound, passed=gate.keeps(pair.tuned)
    )
