"""The verdict of one check of a rollout: the numbers of the window and the answers to the probes against the spec.

Three values: what breaches a limit fails, what cannot be known is inconclusive, and only what was seen to be good
passes. So too little traffic is never a pass, and one breach outweighs everything that could not be told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunewright_api.rollout import MetricCheck, Rollout, RolloutMetric
from tunewright_api.rollout_status import Analysis, MetricAnalysis, ProbeAnalysis, Verdict
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.observe.times import format_time
from tunewright_operator.policies.answers import Answer, is_right, judge_probes
from tunewright_operator.policies.limits import finite, judge_metric
from tunewright_operator.policies.rollout.steps import checks_of, default_metrics
from tunewright_operator.policies.rollout.types import Window

__all__ = ["Answer", "Samples", "checks_of", "default_metrics", "is_right", "judge"]

# So long proxies may go on with the weight before, and Prometheus with the scrape before.
_SETTLING_SECONDS = 10
WRONG_ANSWERS = "WrongAnswers"


@dataclass(frozen=True)
class Samples:
    """One round of Prometheus. An absent value: there were no data."""

    values: Mapping[tuple[RolloutMetric, str], float]  # (metric, revision) -> percent or milliseconds
    requests: Mapping[str, float]  # revision -> requests in the window
    error: str | None = None  # why Prometheus gave no answer


@dataclass(frozen=True)
class _Finding:
    """One thing that the check found."""

    verdict: Verdict
    reason: str
    message: str


def judge(  # noqa: PLR0917 - all that a check sees
    window: Window,
    rollout: Rollout,
    samples: Samples,
    answers: Sequence[Answer] | None,
    candidate: RevisionState,
    now: datetime,
) -> Analysis:
    """The whole check. `answers` is None when no probe was asked."""
    measured = bool(checks_of(rollout))
    unknown = _unknown(window, rollout, samples) if measured else None
    incomparable = _incomparable(window, rollout, samples)
    metrics = [_metric(check, window, rollout, samples, unknown, incomparable) for check in checks_of(rollout)]
    probes = judge_probes(rollout.probes, answers) if rollout.probes else None
    findings = [*_findings(metrics, probes, unknown), *_unready(candidate, window)]
    verdict, decisive = _worst(findings)
    return Analysis(
        time=format_time(now),
        revision=window.revision,
        weight=window.weight,
        window_seconds=window.seconds,
        requests=_requests(samples, window.revision) if measured else None,
        stable_requests=_requests(samples, window.stable) if measured else None,
        verdict=verdict,
        reason=decisive[0].reason if decisive else "Passed",
        message="; ".join(finding.message for finding in decisive) or _passed(window, samples, metrics, probes),
        metrics=metrics,
        probes=probes,
    )


def _metric(  # noqa: PLR0917 - what one figure is judged by
    check: MetricCheck,
    window: Window,
    rollout: Rollout,
    samples: Samples,
    unknown: _Finding | None,
    incomparable: str,
) -> MetricAnalysis:
    value = samples.values.get((check.name, window.revision))
    stable = samples.values.get((check.name, window.stable)) if window.stable else None
    judged = judge_metric(check, window, finite(value), finite(stable), incomparable)
    if unknown is None:
        return judged
    best = _at_best(check.name, finite(value), window, rollout, samples)
    if judge_metric(check, window, best, finite(stable), incomparable).verdict is Verdict.FAIL:
        return judged  # whatever the requests that are missing had shown
    return judged.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "message": unknown.message})


def _findings(
    metrics: Sequence[MetricAnalysis], probes: ProbeAnalysis | None, unknown: _Finding | None
) -> list[_Finding]:
    """What was found, once each: one reason why no metric can be told stands for all of them, but for breaches."""
    found = [_Finding(m.verdict, m.name, m.message) for m in metrics if not unknown or m.verdict is Verdict.FAIL]
    found += [unknown] if unknown else []
    if probes:
        reason = WRONG_ANSWERS if probes.verdict is Verdict.FAIL else "NoAnswers"
        found.append(_Finding(probes.verdict, reason, probes.message))
    return found


def _at_best(
    name: RolloutMetric, value: float | None, window: Window, rollout: Rollout, samples: Samples
) -> float | None:
    """The share that a window of minRequests would have at best, in percent, had all the missing requests ended well;
    None for what is no share."""
    if value is None:
        return None
    seen = min((_requests(samples, window.revision) or 0) / rollout.min_requests, 1)
    match name:
        case RolloutMetric.ERROR_RATE:
            return value * seen
        case RolloutMetric.COMPLETION_RATE:
            return 100 - (100 - value) * seen
    return None


def _worst(findings: Sequence[_Finding]) -> tuple[Verdict, list[_Finding]]:
    """The verdict, and what it rests on."""
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        decisive = [finding for finding in findings if finding.verdict is verdict]
        if decisive:
            return verdict, decisive
    return Verdict.PASS, []


def _unknown(window: Window, rollout: Rollout, samples: Samples) -> _Finding | None:
    """Why no metric can be told."""
    if samples.error:
        return _Finding(Verdict.INCONCLUSIVE, "PrometheusUnavailable", samples.error)
    requests = _requests(samples, window.revision) or 0
    if requests >= rollout.min_requests:
        return None
    if window.revision in samples.requests and not requests and _expected(window, samples) >= rollout.min_requests:
        share = f"{window.weight} % of the traffic beside {_requests(samples, window.stable)} of {window.stable_name}"
        return _Finding(
            Verdict.FAIL, "Unreachable", f"no request reached {window.name} in {window.seconds} s, which gets {share}"
        )
    if window.weight or rollout.mirror:
        counted = f"got {requests} requests in {window.seconds} s, and rollout.minRequests is {rollout.min_requests}"
    else:
        counted = "gets no requests to measure before the switch: set rollout.mirror to true"
    return _Finding(Verdict.INCONCLUSIVE, "TooFewRequests", f"{window.name} {counted}")


def _expected(window: Window, samples: Samples) -> float:
    """Requests that the weight surely gives to the candidate, by what the stable revision got."""
    if not 0 < window.weight < 100:
        return 0
    known = max(1 - _SETTLING_SECONDS / window.seconds, 0)
    return known * (_requests(samples, window.stable) or 0) * window.weight / (100 - window.weight)


def _incomparable(window: Window, rollout: Rollout, samples: Samples) -> str:
    """Why the stable revision's values say too little: a percentile of two answers is no limit for anybody."""
    requests = _requests(samples, window.stable) or 0
    if window.stable is None or not requests or requests >= rollout.min_requests:
        return ""
    few = f"{window.stable_name} got {requests} requests in {window.seconds} s"
    return f"{few}, and rollout.minRequests of {rollout.min_requests} are needed to compare"


def _unready(candidate: RevisionState, window: Window) -> list[_Finding]:
    if candidate.complete:
        return []
    message = f"{candidate.ready} of {candidate.replicas} pods of {window.name} are ready"
    return [_Finding(Verdict.INCONCLUSIVE, "PodsNotReady", message)]


def _requests(samples: Samples, revision: str | None) -> int | None:
    if samples.error or revision is None:
        return None
    return round(finite(samples.requests.get(revision)) or 0)


def _passed(window: Window, samples: Samples, metrics: Sequence[MetricAnalysis], probes: ProbeAnalysis | None) -> str:
    parts = []
    if metrics:
        requests = _requests(samples, window.revision) or 0
        names = ", ".join(metric.name for metric in metrics)
        parts.append(f"{names} within limits, from {requests} requests in {window.seconds} s")
    if probes:
        parts.append(probes.message)
    return "; ".join(parts) or f"all pods of {window.name} are ready"
