"""One metric of a check: its limits, from the spec and from the stable revision's value, and whether it keeps them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_api.rollout import MetricCheck, RolloutMetric, ThresholdRange
from tunewright_api.rollout_status import MetricAnalysis, Verdict
from tunewright_operator.policies.rollout.types import Window

_MORE_IS_BETTER = {RolloutMetric.COMPLETION_RATE}
# Differences that mean nothing however small the stable's value is: one error of a thousand answers, a tick of a clock.
_SLACK_PERCENT, _SLACK_MS = 0.1, 5.0
_PERCENT = {RolloutMetric.ERROR_RATE, RolloutMetric.COMPLETION_RATE}


def finite(value: float | None) -> float | None:
    """A number that status can hold. NaN and infinity are what Prometheus makes of no data: no value."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class _Limit:
    """One bound; `origin` says where it comes from, if not from the spec alone."""

    bound: float
    origin: str = ""


def judge_metric(
    check: MetricCheck, window: Window, candidate: float | None, stable: float | None, incomparable: str = ""
) -> MetricAnalysis:
    """Compare the candidate's value with the tightest limits. `candidate` and `stable` are percent or milliseconds,
    None without data. `incomparable` says why the stable's value is none to compare with, such as "a had 2 requests":
    then, and where the window has no stable revision, only the range of the spec applies."""
    lowest, highest = _limits(check, window, None if incomparable else stable)
    if stable is None and not incomparable:
        incomparable = f"{window.stable_name} had no requests to compare with"
    verdict, message = _verdict(check, window, candidate, incomparable, lowest=lowest, highest=highest)
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
        part, slack = stable * check.tolerance_percent / 100, _SLACK_PERCENT if check.name in _PERCENT else _SLACK_MS
        tolerated = max(part, slack)
        bound = round(max(0.0, stable - tolerated if more else stable + tolerated), 3)
        of = f"{_with_unit(check.name, stable)} of {window.stable_name} {'-' if more else '+'}"
        limit = _Limit(bound, f" ({of} {_tolerance(check, part, slack)})")
        (low if more else high).append(limit)
    return max(low, key=lambda limit: limit.bound, default=None), min(high, key=lambda limit: limit.bound, default=None)


def _verdict(
    check: MetricCheck,
    window: Window,
    candidate: float | None,
    incomparable: str,
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
    within = f"{value}{_within(name, [limit for limit in (lowest, highest) if limit])}"
    if check.tolerance_percent is None or not incomparable:
        return Verdict.PASS, within
    if window.stable is None:
        return Verdict.PASS, f"{value}; there is no stable revision to compare with"
    return (Verdict.PASS if check.threshold_range else Verdict.INCONCLUSIVE), f"{within}; {incomparable}"


def _tolerance(check: MetricCheck, part: float, slack: float) -> str:
    """What is added to the stable's value, as the spec has it; the slack where that is more."""
    if part >= slack:
        return f"{_number(check.tolerance_percent or 0)} %"
    return f"{slack:g} percentage points" if check.name in _PERCENT else f"{slack:g} ms"


def _within(name: RolloutMetric, limits: Sequence[_Limit]) -> str:
    return "".join(f", limit {_with_unit(name, limit.bound)}{limit.origin}" for limit in limits)


def _with_unit(name: RolloutMetric, value: float) -> str:
    return f"{_number(value)} {'%' if name in _PERCENT else 'ms'}"


def _number(value: float) -> str:
    """Three or four digits that matter, without zeros at the end."""
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{round(value, digits):.10g}"
