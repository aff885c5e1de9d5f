"""Where a model server is reached: a URL, or a port of pods through the apiserver."""

import http.client
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tunewright_api.names import HEADER_REVISION, LABEL_KIND, LABEL_NAME, LABEL_REVISION, PORT_SERVER
from tunewright_cli.chain.model import Object
from tunewright_cli.chain.pods import is_ready
from tunewright_cli.cluster.portforward import ForwardedConnection, PortForward
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.kinds import Kind
from tunewright_cli.session import Session

_ROLES = ("stable", "candidate")


@dataclass(frozen=True)
class Endpoint:
    """`connect(number)` opens a new connection: number 0, 1, … go to the pods in turn."""

    name: str
    path: str
    connect: Callable[[int], http.client.HTTPConnection]
    headers: dict[str, str] = field(default_factory=dict)


def by_url(url: str, revision: str, timeout: float) -> Endpoint:
    """An OpenAI-compatible base URL, with or without /v1. A mesh sends requests to a named revision by a header."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(f"{url!r} is no URL: write one such as http://127.0.0.1:8000/v1")
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    host, port = parts.hostname, parts.port or (443 if secure else 80)
    prefix = parts.path.rstrip("/")
    path = prefix if prefix.endswith("/v1") else f"{prefix}/v1"
    if revision in _ROLES:
        raise CliError(
            f"--url needs the hash of a revision, not the word {revision}: tunewright get SERVICE shows it; "
            "then --revision HASH"
        )
    headers = {HEADER_REVISION: revision} if revision else {}
    return Endpoint(url, path, lambda _: kind(host, port, timeout=timeout), headers)


def by_port_forward(session: Session, service: str, revision: str, timeout: float) -> Endpoint:
    """The ready pods of a revision, through the apiserver.

    It goes to the port itself and past every route: for looking at a revision, not for measuring the network.
    """
    found = session.find(Kind.SERVICE, service)
    service = found["metadata"]["name"]
    wanted = choose_revision(found, revision)
    pods = ready_pods(session, service, wanted)
    if not pods:
        advice = f"tunewright why {service} -n {session.namespace}"
        raise CliError(f"no pod of revision {wanted} of {service} is ready: {advice}", Exit.NOT_READY)
    forwards = [PortForward(session.api, session.namespace, pod, PORT_SERVER) for pod in pods]
    return Endpoint(
        f"revision {wanted} of {service} ({len(pods)} {'pod' if len(pods) == 1 else 'pods'})",
        "/v1",
        lambda number: ForwardedConnection(forwards[number % len(forwards)], timeout),
    )


def choose_revision(service: Object, given: str) -> str:
    """Hash of the revision that is meant: stable (if nothing is given), candidate, or a hash."""
    role = given or "stable"
    if role not in _ROLES:
        return given
    revision = (service.get("status", {}).get(role) or {}).get("revision")
    if revision:
        return str(revision)
    name = service["metadata"]["name"]
    reason = "no rollout is under way" if role == "candidate" else "nothing has answered yet"
    raise CliError(f"{name} has no {role} revision, {reason}: tunewright why {name}", Exit.NOT_READY)


def ready_pods(session: Session, service: str, revision: str) -> Sequence[str]:
    """Names of the pods of a revision that answer."""
    labels = {LABEL_KIND: Kind.SERVICE.title, LABEL_NAME: service, LABEL_REVISION: revision}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    path = f"/api/v1/namespaces/{session.namespace}/pods"
    pods, _ = session.api.list_all(path, {"labelSelector": selector})
    return sorted(pod["metadata"]["name"] for pod in pods if is_ready(pod))
