"""One check of a rollout: numbers and answers in, the whole verdict out."""

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.rollout import Probe, Rollout, RolloutMetric, ThresholdRange
from tunewright_api.rollout_status import Analysis, MetricAnalysis, ProbeAnalysis, Verdict
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.policies.analysis import Answer, Samples, checks_of, is_right, judge
from tunewright_operator.policies.rollout import Window

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WINDOW = Window("b", "a", 20, 60, "guide-v2", "guide-v1")
ALONE = replace(WINDOW, stable=None)
READY = RevisionState("b", "guide-v2", replicas=2, ready=2, settled=True, stuck=False)
HALF = replace(READY, ready=1)

ERRORS, COMPLETED = RolloutMetric.ERROR_RATE, RolloutMetric.COMPLETION_RATE
FIRST, FIRST_P50, NEXT = RolloutMetric.TTFT_P95, RolloutMetric.TTFT_P50, RolloutMetric.TPOT_P95

EXACT = Probe(name="capital", prompt="Capital of France?", exact="Paris")
REGEX = Probe(name="city", prompt="A city of France?", regex="(?i)paris|lyon")
RUBRIC = Probe(name="tone", prompt="Say hello.", rubric="It is polite.")


def rules(*metrics: dict[str, Any], probes: list[Probe] | None = None, **fields: Any) -> Rollout:
    """spec.rollout of a Canary with these metrics and probes."""
    spec: dict[str, Any] = {"strategy": "Canary", "metrics": list(metrics)} | fields
    if probes:
        judge_ref = {"judge": {"url": "http://judge/v1", "model": "judge"}} if any(p.rubric for p in probes) else {}
        limits = {"minPassPercent": spec.pop("minPassPercent", 100)}
        spec["probes"] = {"prompts": [probe.to_dict() for probe in probes]} | judge_ref | limits
    return Rollout.model_validate(spec)


def at_most(metric: RolloutMetric, limit: float) -> dict[str, Any]:
    """A metric with an upper limit."""
    return {"name": metric.value, "thresholdRange": {"max": limit}}


def at_least(metric: RolloutMetric, limit: float) -> dict[str, Any]:
    """A metric with a lower limit."""
    return {"name": metric.value, "thresholdRange": {"min": limit}}


def tolerates(metric: RolloutMetric, percent: float, **limits: float) -> dict[str, Any]:
    """A metric that is compared with the stable revision."""
    own = {"thresholdRange": limits} if limits else {}
    return {"name": metric.value, "tolerancePercent": percent} | own


def samples(
    metric: RolloutMetric | None = None,
    candidate: float | None = None,
    stable: float | None = None,
    requests: float = 50,
) -> Samples:
    """Values of one metric."""
    both = {"b": candidate, "a": stable}
    values = {(metric, name): value for name, value in both.items() if metric and value is not None}
    return Samples(values, {"b": requests, "a": 200})


@dataclass
class Case:
    """What is seen, and (verdict, reason, message)."""

    rules: Rollout
    samples: Samples
    want: tuple[str, str, str]
    answers: list[Answer] | None = None
    candidate: RevisionState = field(default_factory=lambda: READY)
    window: Window = WINDOW


CASES = {
    "an error rate below its limit": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 0.4),
        ("Pass", "Passed", "ErrorRate within limits, from 50 requests in 60 s"),
    ),
    "exactly at the limit is good": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 1),
        ("Pass", "Passed", "ErrorRate within limits, from 50 requests in 60 s"),
    ),
    "an error rate above its limit": Case(
        rules(at_most(ERRORS, 1)), samples(ERRORS, 1.26), ("Fail", "ErrorRate", "ErrorRate is 1.26 %, limit 1 %")
    ),
    "a completion rate below its limit": Case(
        rules(at_least(COMPLETED, 95)),
        samples(COMPLETED, 94.96),
        ("Fail", "CompletionRate", "CompletionRate is 94.96 %, at least 95 % is asked for"),
    ),
    "slower than the stable revision may be": Case(
        rules(tolerates(FIRST, 25)),
        samples(FIRST, 912, 500),
        ("Fail", "TTFTP95", "TTFTP95 is 912 ms, limit 625 ms (500 ms of guide-v1 + 25 %)"),
    ),
    "slower, but within the tolerance": Case(
        rules(tolerates(FIRST, 25)),
        samples(FIRST, 620, 500),
        ("Pass", "Passed", "TTFTP95 within limits, from 50 requests in 60 s"),
    ),
    "of two limits the tighter one holds, here the stable one's": Case(
        rules(tolerates(NEXT, 10, max=100)),
        samples(NEXT, 50, 40),
        ("Fail", "TPOTP95", "TPOTP95 is 50 ms, limit 45 ms (40 ms of guide-v1 + 5 ms)"),
    ),
    "of two limits the tighter one holds, here the spec's own": Case(
        rules(tolerates(NEXT, 1000, max=100)),
        samples(NEXT, 120, 40),
        ("Fail", "TPOTP95", "TPOTP95 is 120 ms, limit 100 ms"),
    ),
    "fewer good ends than the stable revision has": Case(
        rules(tolerates(COMPLETED, 5)),
        samples(COMPLETED, 80, 100),
        (
            "Fail",
            "CompletionRate",
            "CompletionRate is 80 %, at least 95 % is asked for (100 % of guide-v1 - 5 %)",
        ),
    ),
    "the stable revision makes no errors, so none is tolerated": Case(
        rules(tolerates(ERRORS, 50)),
        samples(ERRORS, 0.5, 0),
        ("Fail", "ErrorRate", "ErrorRate is 0.5 %, limit 0.1 % (0 % of guide-v1 + 0.1 percentage points)"),
    ),
    "the stable revision makes no errors, and the candidate one of ten thousand": Case(
        rules(tolerates(ERRORS, 0)),
        samples(ERRORS, 0.01, 0, requests=10_000),
        ("Pass", "Passed", "ErrorRate within limits, from 10000 requests in 60 s"),
    ),
    "the stable revision answers at once, and the candidate nearly so": Case(
        rules(tolerates(FIRST, 10)),
        samples(FIRST, 8, 4),
        ("Pass", "Passed", "TTFTP95 within limits, from 50 requests in 60 s"),
    ),
    "two requests of the stable revision are no measure for a bad candidate": Case(
        rules(tolerates(FIRST, 25)),
        replace(samples(FIRST, 5000, 500), requests={"b": 50, "a": 2}),
        (
            "Inconclusive",
            "TTFTP95",
            "TTFTP95 is 5000 ms; guide-v1 got 2 requests in 60 s, and rollout.minRequests of 20 are needed to compare",
        ),
    ),
    "two requests of the stable revision are none for a good one either: its range decides": Case(
        rules(tolerates(FIRST, 25, max=600)),
        replace(samples(FIRST, 590, 300), requests={"b": 50, "a": 2}),
        ("Pass", "Passed", "TTFTP95 within limits, from 50 requests in 60 s"),
    ),
    "two requests of the stable revision, and the range is breached": Case(
        rules(tolerates(FIRST, 25, max=600)),
        replace(samples(FIRST, 601, 5000), requests={"b": 50, "a": 2}),
        ("Fail", "TTFTP95", "TTFTP95 is 601 ms, limit 600 ms"),
    ),
    "too fast is bad where the spec says so": Case(
        rules(at_least(FIRST_P50, 1)),
        samples(FIRST_P50, 0.2),
        ("Fail", "TTFTP50", "TTFTP50 is 0.2 ms, at least 1 ms is asked for"),
    ),
    "two breaches: the first names the reason, the sentence has both": Case(
        rules(at_most(ERRORS, 1), at_most(FIRST, 600)),
        Samples({(ERRORS, "b"): 2, (FIRST, "b"): 700}, {"b": 50}),
        ("Fail", "ErrorRate", "ErrorRate is 2 %, limit 1 %; TTFTP95 is 700 ms, limit 600 ms"),
    ),
    # --- what cannot be known
    "too few requests are never a pass": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 0, requests=19),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 19 requests in 60 s, and rollout.minRequests is 20"),
    ),
    "too few requests, and some of them slow": Case(
        rules(at_most(FIRST, 100)),
        samples(FIRST, 900, requests=3),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 3 requests in 60 s, and rollout.minRequests is 20"),
    ),
    "too few requests, and so many errors that the missing ones could not make up for them": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 100, requests=3),
        ("Fail", "ErrorRate", "ErrorRate is 100 %, limit 1 %"),
    ),
    "too few requests, and errors that the missing ones might make up for": Case(
        rules(at_most(ERRORS, 10)),
        samples(ERRORS, 50, requests=3),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 3 requests in 60 s, and rollout.minRequests is 20"),
    ),
    "requests that never arrive": Case(
        rules(at_most(ERRORS, 1)),
        Samples({}, {"b": 0, "a": 100}),
        (
            "Fail",
            "Unreachable",
            "no request reached guide-v2 in 60 s, which gets 20 % of the traffic beside 100 of guide-v1",
        ),
    ),
    "a window in which the weight may not have been there yet": Case(
        rules(at_most(ERRORS, 1)),
        Samples({}, {"b": 0, "a": 1000}),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 0 requests in 10 s, and rollout.minRequests is 20"),
        window=replace(WINDOW, seconds=10),
    ),
    "a candidate that Prometheus does not scrape": Case(
        rules(at_most(ERRORS, 1)),
        Samples({}, {"a": 80}),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 0 requests in 60 s, and rollout.minRequests is 20"),
    ),
    "no requests at all": Case(
        rules(at_most(ERRORS, 1)),
        Samples({}, {}),
        ("Inconclusive", "TooFewRequests", "guide-v2 got 0 requests in 60 s, and rollout.minRequests is 20"),
    ),
    "before a switch nobody sends requests": Case(
        rules(at_most(ERRORS, 1), strategy="BlueGreen"),
        Samples({}, {}),
        (
            "Inconclusive",
            "TooFewRequests",
            "guide-v2 gets no requests to measure before the switch: set rollout.mirror to true",
        ),
        window=replace(WINDOW, weight=0),
    ),
    "Prometheus is away": Case(
        rules(at_most(ERRORS, 1)),
        Samples({}, {}, "Prometheus at http://p does not answer"),
        ("Inconclusive", "PrometheusUnavailable", "Prometheus at http://p does not answer"),
    ),
    "requests, but no value": Case(
        rules(at_most(FIRST, 600)),
        samples(),
        ("Inconclusive", "TTFTP95", "Prometheus has no TTFTP95 of guide-v2 for the last 60 s"),
    ),
    "a quantile of nothing": Case(
        rules(at_most(FIRST, 600)),
        samples(FIRST, math.nan),
        ("Inconclusive", "TTFTP95", "Prometheus has no TTFTP95 of guide-v2 for the last 60 s"),
    ),
    "a quantile beyond the last bucket": Case(
        rules(at_most(FIRST, 600)),
        samples(FIRST, math.inf),
        ("Inconclusive", "TTFTP95", "Prometheus has no TTFTP95 of guide-v2 for the last 60 s"),
    ),
    "nobody asked the stable revision in the window": Case(
        rules(tolerates(FIRST, 25)),
        samples(FIRST, 500),
        ("Inconclusive", "TTFTP95", "TTFTP95 is 500 ms; guide-v1 had no requests to compare with"),
    ),
    "no stable pod is ready: only the range applies": Case(
        rules(tolerates(FIRST, 25, max=600)),
        samples(FIRST, 500),
        ("Pass", "Passed", "TTFTP95 within limits, from 50 requests in 60 s"),
        window=ALONE,
    ),
    "no stable pod is ready, and the range is breached": Case(
        rules(tolerates(FIRST, 25, max=600)),
        samples(FIRST, 601),
        ("Fail", "TTFTP95", "TTFTP95 is 601 ms, limit 600 ms"),
        window=ALONE,
    ),
    "a pod is not ready": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 0),
        ("Inconclusive", "PodsNotReady", "1 of 2 pods of guide-v2 are ready"),
        candidate=HALF,
    ),
    "a breach outweighs a pod that is not ready": Case(
        rules(at_most(ERRORS, 1)),
        samples(ERRORS, 9),
        ("Fail", "ErrorRate", "ErrorRate is 9 %, limit 1 %"),
        candidate=HALF,
    ),
    "nothing to measure: all pods are ready": Case(
        rules(), Samples({}, {}), ("Pass", "Passed", "all pods of guide-v2 are ready")
    ),
    # --- probes
    "all answers are right": Case(
        rules(probes=[EXACT, REGEX]),
        Samples({}, {}),
        ("Pass", "Passed", "2 of 2 probes answered right"),
        [Answer(EXACT, " Paris\n"), Answer(REGEX, "I like LYON.")],
    ),
    "a wrong answer": Case(
        rules(probes=[EXACT, REGEX]),
        Samples({}, {}),
        (
            "Fail",
            "WrongAnswers",
            "1 of 2 probes answered right, minPassPercent is 100: probe capital answered 'paris', expected 'Paris'",
        ),
        [Answer(EXACT, "paris"), Answer(REGEX, "paris")],
    ),
    "half of the answers are enough": Case(
        rules(probes=[EXACT, REGEX], minPassPercent=50),
        Samples({}, {}),
        ("Pass", "Passed", "1 of 2 probes answered right"),
        [Answer(EXACT, "Rome"), Answer(REGEX, "paris")],
    ),
    "one answer is missing, and it decides": Case(
        rules(probes=[EXACT, REGEX]),
        Samples({}, {}),
        (
            "Inconclusive",
            "NoAnswers",
            "1 of 2 probes answered right, minPassPercent is 100: probe city: nobody could connect to it",
        ),
        [Answer(EXACT, "Paris"), Answer(REGEX, None, "nobody could connect to it")],
    ),
    "the candidate refuses to answer, which is as bad as a wrong answer": Case(
        rules(probes=[EXACT, RUBRIC]),
        Samples({}, {}),
        (
            "Fail",
            "WrongAnswers",
            "1 of 2 probes answered right, minPassPercent is 100: probe tone: it answered 500",
        ),
        [Answer(EXACT, "Paris"), Answer(RUBRIC, None, "it answered 500", refused=True)],
    ),
    "one answer is missing, but it cannot save the others": Case(
        rules(probes=[EXACT, REGEX]),
        Samples({}, {}),
        (
            "Fail",
            "WrongAnswers",
            "0 of 2 probes answered right, minPassPercent is 100: probe capital answered '', expected 'Paris'",
        ),
        [Answer(EXACT, ""), Answer(REGEX, None, "nobody could connect to it")],
    ),
    "the judge says no": Case(
        rules(probes=[RUBRIC]),
        Samples({}, {}),
        (
            "Fail",
            "WrongAnswers",
            "0 of 1 probes answered right, minPassPercent is 100: probe tone answered 'Go away', "
            "expected 'It is polite.'",
        ),
        [Answer(RUBRIC, "Go away", judged=False)],
    ),
    "the judge is away, which is not the candidate's fault": Case(
        rules(probes=[RUBRIC]),
        Samples({}, {}),
        (
            "Inconclusive",
            "NoAnswers",
            "0 of 1 probes answered right, minPassPercent is 100: probe tone: the judge: it answered 500",
        ),
        [Answer(RUBRIC, "Hello", "the judge: it answered 500")],
    ),
    "the probes were not asked": Case(
        rules(probes=[EXACT]), Samples({}, {}), ("Inconclusive", "NoAnswers", "the probes were not asked")
    ),
    "wrong answers count without any traffic": Case(
        rules(at_most(ERRORS, 1), probes=[EXACT]),
        Samples({}, {}),
        (
            "Fail",
            "WrongAnswers",
            "0 of 1 probes answered right, minPassPercent is 100: probe capital answered 'Rome', expected 'Paris'",
        ),
        [Answer(EXACT, "Rome")],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_verdict_and_the_sentence(case: Case) -> None:
    found = judge(case.window, case.rules, case.samples, case.answers, case.candidate, NOW)
    assert (found.verdict.value, found.reason, found.message) == case.want


def test_the_whole_analysis() -> None:
    found = judge(
        WINDOW,
        rules(tolerates(FIRST, 25, min=1), at_most(ERRORS, 1), probes=[EXACT]),
        Samples({(FIRST, "b"): 912.3456, (FIRST, "a"): 500, (ERRORS, "b"): 0.25}, {"b": 49.6, "a": 201.2}),
        [Answer(EXACT, "Paris")],
        READY,
        NOW,
    )
    slow = "TTFTP95 is 912.3 ms, limit 625 ms (500 ms of guide-v1 + 25 %)"
    assert found == Analysis(
        time="2026-01-02T03:04:05Z",
        revision="b",
        weight=20,
        window_seconds=60,
        requests=50,
        stable_requests=201,
        verdict=Verdict.FAIL,
        reason="TTFTP95",
        message=slow,
        metrics=[
            MetricAnalysis(
                name=FIRST,
                stable=500,
                candidate=912.346,
                threshold_range=ThresholdRange(min=1, max=625),
                verdict=Verdict.FAIL,
                message=slow,
            ),
            MetricAnalysis(
                name=ERRORS,
                candidate=0.25,
                threshold_range=ThresholdRange(max=1),
                verdict=Verdict.PASS,
                message="ErrorRate is 0.25 %, limit 1 %",
            ),
        ],
        probes=ProbeAnalysis(passed=1, total=1, verdict=Verdict.PASS, message="1 of 1 probes answered right"),
    )


def names(**fields: Any) -> list[str]:
    """The metrics of this spec.rollout."""
    return [check.name.value for check in checks_of(Rollout.model_validate(fields))]


def test_what_is_measured_when_the_spec_does_not_say() -> None:
    four = ["ErrorRate", "CompletionRate", "TTFTP95", "TPOTP95"]
    assert names(strategy="Canary") == four
    assert names(strategy="BlueGreen") == []
    assert names(strategy="BlueGreen", mirror=True) == four
    assert names(strategy="Recreate") == []
    assert names(strategy="Canary", metrics=[]) == []


@pytest.mark.parametrize(
    ("expression", "text", "right"),
    [
        ("^4[0-9]$", "42", True),
        ("^4[0-9]$", "420", False),
        ("(?i)PARIS", "in Paris, of course", True),
        ("(?s)first.*last", "first\nlast", True),
        (r"\p{Greek}", "the letter π", True),
        ("(a+)+$", "a" * 5000 + "b", False),  # a backtracking matcher would not come back
        ("(unclosed", "anything", None),
    ],
)
def test_expressions_are_re2(expression: str, text: str, right: bool | None) -> None:
    assert is_right(Probe(name="p", prompt="?", regex=expression), text) is right


def test_a_rubric_is_nothing_that_can_be_compared() -> None:
    assert is_right(RUBRIC, "Hello") is None


values = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1000)


@given(
    candidate=values,
    stable=values,
    requests=st.floats(0, 100),
    limit=st.floats(0, 1000),
    tolerance=st.none() | st.floats(0, 1000),
    window=st.sampled_from([WINDOW, ALONE]),
    pods=st.sampled_from([READY, HALF]),
)
def test_only_enough_requests_and_a_value_within_its_limit_can_pass(
    *,
    candidate: float | None,
    stable: float | None,
    requests: float,
    limit: float,
    tolerance: float | None,
    window: Window,
    pods: RevisionState,
) -> None:
    check = at_most(FIRST, limit) | ({} if tolerance is None else {"tolerancePercent": tolerance})
    found = judge(window, rules(check), samples(FIRST, candidate, stable, requests), None, pods, NOW)
    assert Analysis.model_validate_json(found.model_dump_json()) == found, "status can hold it"
    if found.verdict is Verdict.PASS:
        assert candidate is not None
        assert candidate <= limit + 0.001
        assert round(requests) >= 20
        assert pods is READY
    if found.verdict is Verdict.FAIL and found.reason != "Unreachable":
        assert candidate is not None
        assert round(requests) >= 20


opinions = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=8)


@given(opinions=opinions, needed=st.integers(1, 100))
def test_missing_answers_never_change_a_verdict_that_was_given(opinions: list[bool | None], needed: int) -> None:
    probes = [Probe(name=f"p{i}", prompt="?", exact="yes") for i in range(len(opinions))]
    spec = rules(probes=probes, minPassPercent=needed)

    def verdict(seen: list[bool | None]) -> Verdict:
        texts = {True: "yes", False: "no", None: None}
        answers = [Answer(probe, texts[opinion]) for probe, opinion in zip(probes, seen, strict=True)]
        return judge(WINDOW, spec, Samples({}, {}), answers, READY, NOW).verdict

    given_now = verdict(opinions)
    later = {verdict([later if opinion is None else opinion for opinion in opinions]) for later in (True, False)}
    assert (later == {given_now}) if given_now is not Verdict.INCONCLUSIVE else (later == {Verdict.PASS, Verdict.FAIL})
