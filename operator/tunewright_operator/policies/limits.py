"""One metric of a check: its limits, from the spec and from the stable revision's value, and whether it keeps them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_api.rollout import MetricCheck, RolloutMetric, ThresholdRange
from tunewright_api.rollout_status import MetricAnalysis, Verdict
from tunewright_operator.policies.rollout.types import Window

_MORE_IS_BETTER = {RolloutMetric.COMPLETION_RATE}
_PERCENT = {RolloutMetric.ERROR_RATE, RolloutMetric.COMPLETION_RATE}


def finite(value: float | None) -> float | None:
    """A number that status can hold. NaN and infinity are what Prometheus makes of no data: no value."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class _Limit:
    """One bound; `origin` says where it comes from, if not from the spec alone."""

    bound: float
    origin: str = ""


def judge_metric(check: MetricCheck, window: Window, candidate: float | None, stable: float | None) -> MetricAnalysis:
    """Compare the candidate's value with the tightest limits. `candidate` and `stable` are percent or milliseconds,
    None without data. Where the window has no stable revision to compare with, only the range of the spec applies."""
    lowest, highest = _limits(check, window, stable)
    verdict, message = _verdict(check, window, candidate, stable, lowest=lowest, highest=highest)
    limits = ThresholdRange(min=lowest and lowest.bound, max=highest and highest.bound) if lowest or highest else None
    return MetricAnalysis(
        name=check.name, stable=stable, candidate=candidate, threshold_range=limits, verdict=verdict, message=message
    )


def _limits(check: MetricCheck, window: Window, stable: float | None) -> tuple[_Limit | None, _Limit | None]:
    """(lowest, highest) good value."""
    low, high = [], []
    if check.threshold_range:
        low += [_Limit(check.threshold_range.min)] if check.threshold_range.min is not None else []
        high += [_Limit(check.threshold_range.max)] if check.threshold_range.max is not None else []
    if check.tolerance_percent is not None and stable is not None:
        more = check.name in _MORE_IS_BETTER
        part = check.tolerance_percent / 100
        bound = round(max(0.0, stable * (1 - part if more else 1 + part)), 3)
        sign = "-" if more else "+"
        of = f"{_with_unit(check.name, stable)} of {window.stable_name}"
        limit = _Limit(bound, f" ({of} {sign} {_number(check.tolerance_percent)} %)")
        (low if more else high).append(limit)
    return max(low, key=lambda limit: limit.bound, default=None), min(high, key=lambda limit: limit.bound, default=None)


def _verdict(
    check: MetricCheck,
    window: Window,
    candidate: float | None,
    stable: float | None,
    *,
    lowest: _Limit | None,
    highest: _Limit | None,
) -> tuple[Verdict, str]:
    name = check.name
    if candidate is None:
        return Verdict.INCONCLUSIVE, f"Prometheus has no {name} of {window.name} for the last {window.seconds} s"
    value = f"{name} is {_with_unit(name, candidate)}"
    if highest and candidate > highest.bound:
        return Verdict.FAIL, f"{value}, limit {_with_unit(name, highest.bound)}{highest.origin}"
    if lowest and candidate < lowest.bound:
        return Verdict.FAIL, f"{value}, at least {_with_unit(name, lowest.bound)} is asked for{lowest.origin}"
    if check.tolerance_percent is not None and stable is None:
        if window.stable is None:
            return Verdict.PASS, f"{value}; there is no stable revision to compare with"
        return Verdict.INCONCLUSIVE, f"{value}; {window.stable_name} had no requests to compare with"
    return Verdict.PASS, f"{value}{_within(name, [limit for limit in (lowest, highest) if limit])}"


def _within(name: RolloutMetric, limits: Sequence[_Limit]) -> str:
    return "".join(f", limit {_with_unit(name, limit.bound)}{limit.origin}" for limit in limits)


def _with_unit(name: RolloutMetric, value: float) -> str:
    return f"{_number(value)} {'%' if name in _PERCENT else 'ms'}"


def _number(value: float) -> str:
    """Three or four digits that matter, without zeros at the end."""
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{round(value, digits):.10g}"
