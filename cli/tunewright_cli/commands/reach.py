"""How `ask`, `chat` and `bench` reach a service: by --url, or by themselves through the apiserver."""

from tunewright_cli.load.endpoint import Endpoint, by_port_forward, by_url
from tunewright_cli.parse import Target
from tunewright_cli.session import Session

ANSWER_SECONDS = 300.0


def reach(target: Target, service: str, revision: str, url: str, timeout: float = ANSWER_SECONDS) -> Endpoint:
    """The endpoint; no cluster is asked where a URL is given."""
    if url:
        return by_url(url, revision, timeout)
    return by_port_forward(Session(target), service, revision, timeout)
