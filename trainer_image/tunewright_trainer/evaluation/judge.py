"""A judge: an OpenAI-compatible endpoint that scores answers from 1 to 5 by a rubric."""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tunewright_api.evaluation import EvaluationJudge
from tunewright_api.names import ENV_JUDGE_KEY, ExitCode
from tunewright_trainer.errors import StageError

TIMEOUT = 60.0
"""Seconds for one request."""
ATTEMPTS = 5
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts."""
_PARALLEL = 4
_MAX_TOKENS = 1024
_MAX_BYTES = 1 << 20
_BUSY = frozenset({408, 425, 429})

_SYSTEM = (
    "You grade one answer of a language model by a rubric. Read question, reference and answer; the reference is one "
    "good answer, not the only one. Reply with a single integer from 1 (worst) to 5 (best) and nothing else."
)
# Thoughts that the limit of tokens cut off have no end.
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Case:
    """An answer to score, with what it answers."""

    question: str
    reference: str
    answer: str


class _UnclearError(Exception):
    """What came back is no score, or nothing came back; another attempt may help."""


def score_answers(
    judge: EvaluationJudge, cases: Sequence[Case], *, sleep: Callable[[float], None] = time.sleep
) -> float:
    """Mean score of the cases: 1 (worst) to 5.

    Raises:
        StageError: INVALID_CONFIG when the judge refuses the request, INTERNAL (retriable) when it does not answer or
            answers no score after ATTEMPTS attempts.
    """
    with ThreadPoolExecutor(_PARALLEL) as pool:
        results = [pool.submit(_score, judge, case, sleep) for case in cases]
        try:
            return sum(result.result() for result in results) / len(results)
        except StageError:
            pool.shutdown(cancel_futures=True)
            raise


def check_judge(judge: EvaluationJudge) -> None:
    """Ask for one score, so that a wrong address, name or key is told before a model is loaded.

    Raises:
        StageError: As `score_answers`.
    """
    score_answers(judge, [Case("What is 2 + 2?", "4", "4")])


def read_score(text: str) -> int | None:
    """The score in a reply: the only number from 1 to 5 in its last line, thoughts left out."""
    lines = _THOUGHTS.sub("", text).strip().splitlines()
    # "4/5" and "4 out of 5" name the scale as well.
    last = re.sub(r"(/|\bout of)\s*5\b", "", lines[-1]) if lines else ""
    numbers = _NUMBER.findall(last)
    return int(numbers[0]) if len(numbers) == 1 and numbers[0] in {"1", "2", "3", "4", "5"} else None


def _score(judge: EvaluationJudge, case: Case, sleep: Callable[[float], None]) -> int:
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(PAUSES[attempt - 1])
        try:
            reply = _ask(judge, case)
            score = read_score(reply)
            if score is not None:
                return score
            raise _UnclearError(f"answered {reply[:80]!r} instead of a number from 1 to 5")
        except _UnclearError as error:
            problem = str(error)
    raise StageError(
        ExitCode.INTERNAL,
        f"evaluation.judge {judge.url} {problem} ({ATTEMPTS} attempts): look at its log, or remove evaluation.judge in "
        "a FineTuneJob with a new name",
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Where the key goes is not for the other side to say."""

    def redirect_request(self, *arguments: object, **more: object) -> None:
        """Follow nothing: the status of the redirect becomes the error."""


def _ask(judge: EvaluationJudge, case: Case) -> str:
    content = (
        f"Question:\n{case.question}\n\nReference:\n{case.reference}\n\nAnswer:\n{case.answer}\n\n"
        f"Rubric:\n{judge.rubric}"
    )
    body = {
        "model": judge.model,
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(ENV_JUDGE_KEY):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{judge.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT) as response:
            answer = json.loads(response.read(_MAX_BYTES))
        choice = answer["choices"][0]
        if choice.get("finish_reason") == "length":
            raise _UnclearError(f"was not done after {_MAX_TOKENS} tokens")
        return str(choice["message"]["content"] or "")
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code not in _BUSY:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"evaluation.judge {judge.url} answered {_said(error)}: check url, model and secretRef",
            ) from error
        raise _UnclearError(f"answered {_said(error)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _UnclearError(f"cannot be reached: {reason}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _UnclearError("answered something else than a chat completion") from error


def _said(error: urllib.error.HTTPError) -> str:
    """Status and what an OpenAI-compatible API says to it, such as which model it does not know."""
    status = f"{error.code} {error.reason}"
    try:
        content = json.loads(error.read(_MAX_BYTES))
        message = str((content.get("error") or content)["message"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return status
    if key := os.environ.get(ENV_JUDGE_KEY):
        message = message.replace(key, "…")
    return f"{status} ({message[:200]})"
