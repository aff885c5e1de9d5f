"""How the server fails: one exception that carries an exit code and a sentence for people."""

from tunewright_api.names import ExitCode


class ServerError(Exception):
    """The server cannot go on. The message says what happened and what to do."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
