"""The three kinds as people name them on the command line, and as the API calls them."""

from enum import Enum

from tunewright_api.names import API_VERSION
from tunewright_cli.exits import CliError

ROOT = f"/apis/{API_VERSION}"


class Kind(Enum):
    """A kind of ours: (kind, plural, short name)."""

    JOB = ("FineTuneJob", "finetunejobs", "ftj")
    VERSION = ("ModelVersion", "modelversions", "mv")
    SERVICE = ("InferenceService", "inferenceservices", "tis")

    def __init__(self, title: str, plural: str, short: str) -> None:
        self.title = title
        self.plural = plural
        self.short = short

    def path(self, namespace: str, name: str = "") -> str:
        """URL path of the objects of a namespace, or of one of them; of all namespaces without a namespace."""
        space = f"/namespaces/{namespace}" if namespace else ""
        return f"{ROOT}{space}/{self.plural}" + (f"/{name}" if name else "")


def parse_reference(text: str) -> tuple[Kind | None, str]:
    """`guide` -> (None, guide); `tis/guide` -> (SERVICE, guide). Raises CliError for a kind that is not ours."""
    word, slash, name = text.rpartition("/")
    if not slash:
        return None, text
    for kind in Kind:
        if word.lower() in {kind.title.lower(), kind.plural, kind.short}:
            return kind, name
    raise CliError(f"{word!r} is no kind of Tunewright: write ftj/{name}, mv/{name} or tis/{name}")
