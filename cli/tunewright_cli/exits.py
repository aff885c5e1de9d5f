"""How a command ends: an exit code, and for everything but success one sentence that says what to do."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    ERROR = 1
    NOT_READY = 2
    REFUSED = 3

    @property
    def meaning(self) -> str:
        """What it tells a script."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done, or all is well",
    Exit.ERROR: "a wrong argument, no cluster, or a fault",
    Exit.NOT_READY: "not ready: something is broken, missing or not finished in time",
    Exit.REFUSED: "refused: by the apiserver's access rules, by the operator, or by you at the question",
}


class CliError(Exception):
    """A command cannot go on. The message is one sentence, and ends with what to do."""

    def __init__(self, message: str, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.code = code
