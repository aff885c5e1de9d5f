"""What a scripted model server does. A test holds the object and changes it while the server runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunewright_api.names import ExitCode
from tunewright_api.results import Outcome, StageResult

ANSWER = "It is Paris."


@dataclass(frozen=True)
class Ending:
    """How a container ends: what the kubelet writes into `terminated`."""

    exit_code: int
    message: str = ""
    reason: str = "Error"

    @classmethod
    def ours(cls, code: ExitCode, message: str) -> Ending:
        """The server image gives up: one of our exit codes, and a termination message that says why."""
        result = StageResult(outcome=Outcome.FAILED, reason=code.reason, message=message)
        return cls(code.value, result.to_message())


OUT_OF_MEMORY = Ending(137, reason="OOMKilled")


@dataclass(frozen=True)
class Waiting:
    """Why a container is not even created: the kubelet's `waiting`."""

    reason: str
    message: str = ""


@dataclass
class Behaviour:
    """Times are seconds, shares go from 0 to 1 and are kept exactly: 0.25 is every fourth request."""

    load_seconds: float = 0.2
    loads: bool = True
    waiting: Waiting | None = None  # the container is not created while this is set
    ending: Ending | None = None  # the container ends, again after each restart, while this is set

    healthy: bool = True  # False: completions fail, as the supervisor notices
    first_token: float = 0.01
    per_token: float = 0.004
    errors: float = 0.0  # share of the requests that are answered 500
    broken: float = 0.0  # share of the requests whose connection breaks halfway
    aborted: float = 0.0  # share of the answers that the engine ends early
    answer: str = ANSWER
    answers: dict[str, str] = field(default_factory=dict)  # prompt -> answer, instead of `answer`

    def reply(self, prompt: str) -> str:
        """The answer to a prompt."""
        return self.answers.get(prompt, self.answer)


class Shares:
    """Which requests a share picks: the first when it is 1, every fourth when it is 0.25, none when it is 0."""

    def __init__(self) -> None:
        self._debts: dict[str, float] = {}

    def takes(self, name: str, share: float) -> bool:
        """Whether the next request is one of them."""
        debt = self._debts.get(name, 0.0) + share
        hit = debt >= 1.0 - 1e-9
        self._debts[name] = debt - 1.0 if hit else debt
        return hit
