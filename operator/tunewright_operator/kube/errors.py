"""What can go wrong at the apiserver, as types."""

# ruff: noqa: N818 - named like the answers of the apiserver


class KubeError(Exception):
    """An answer of the apiserver that is no success; `message` is its own sentence.

    `reason` is the condition reason of an answer that has one of its own, whatever it was given to.
    """

    reason = ""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NotFound(KubeError):
    """404: the object does not exist (any more)."""


class Conflict(KubeError):
    """409: somebody else wrote first, or owns the field."""


class AlreadyExists(Conflict):
    """409: an object of this name is there, and was not when we last looked."""


class NameTaken(KubeError):
    """The name of a child belongs to an object that is not ours; it is never taken over."""

    reason = "NameTaken"


class Invalid(KubeError):
    """400 or 422: the object cannot be accepted as it is; trying again does not help."""


class Forbidden(KubeError):
    """403: not allowed, by RBAC, by admission or by a quota."""


class Transient(KubeError):
    """429, 5xx or no answer: try again."""
