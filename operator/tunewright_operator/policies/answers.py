"""The probes of a check: which answers are right, and whether enough of them are."""

from collections.abc import Sequence
from dataclasses import dataclass

import re2

from tunewright_api.rollout import Probe, Probes
from tunewright_api.rollout_status import ProbeAnalysis, Verdict

_QUOTED = 120


@dataclass(frozen=True)
class Answer:
    """What came back for one probe. `error` says why there is no text, or with a text why there is no judgement.
    That nobody could connect, or that the judge is away, says nothing about the candidate."""

    probe: Probe
    text: str | None
    error: str | None = None
    judged: bool | None = None  # a judge's opinion, for a rubric
    refused: bool = False  # the candidate itself answered with an error, or not in time


def is_right(probe: Probe, answer: str) -> bool | None:
    """Whether the text is the exact answer, or contains a match of the RE2 expression. None where that cannot be told:
    for a rubric, and for an expression that RE2 does not read."""
    if probe.exact is not None:
        return answer.strip() == probe.exact.strip()
    if probe.regex is None:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.search(probe.regex, answer, options) is not None
    except re2.error:
        return None


def judge_probes(probes: Probes, answers: Sequence[Answer] | None) -> ProbeAnalysis:
    """A verdict that holds whatever the missing answers would have been, or Inconclusive."""
    total = len(probes.prompts)
    opinions = [(answer, _opinion(answer)) for answer in answers or ()]
    right = sum(opinion is True for _, opinion in opinions)
    wrong = [answer for answer, opinion in opinions if opinion is False]
    unknown = [answer for answer, opinion in opinions if opinion is None]
    passed = f"{right} of {total} probes answered right"
    needed = f"{passed}, minPassPercent is {probes.min_pass_percent:g}"
    if wrong and 100 * (total - len(wrong)) < probes.min_pass_percent * total:
        verdict, message = Verdict.FAIL, f"{needed}: {_wrong(wrong[0])}"
    elif 100 * right >= probes.min_pass_percent * total:
        verdict, message = Verdict.PASS, passed
    elif unknown:
        verdict, message = Verdict.INCONCLUSIVE, f"{needed}: probe {unknown[0].probe.name}: {_why(unknown[0])}"
    else:
        verdict, message = Verdict.INCONCLUSIVE, "the probes were not asked"
    return ProbeAnalysis(passed=right, total=total, verdict=verdict, message=message)


def _opinion(answer: Answer) -> bool | None:
    if answer.text is None:
        return False if answer.refused else None
    return answer.judged if answer.probe.rubric is not None else is_right(answer.probe, answer.text)


def _wrong(answer: Answer) -> str:
    if answer.text is None:
        return f"probe {answer.probe.name}: {_why(answer)}"
    expected = answer.probe.exact or answer.probe.regex or answer.probe.rubric or ""
    text = (answer.text or "").strip()
    return f"probe {answer.probe.name} answered {_quote(text)}, expected {_quote(expected)}"


def _why(answer: Answer) -> str:
    return answer.error or ("no answer" if answer.text is None else "nobody can tell whether the answer is right")


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")
