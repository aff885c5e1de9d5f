"""`tunewright approve|reject`: a person's decision, under their own name, for the digest that they saw."""

import sys
from typing import Any

from tunewright_api.names import APPROVE_VERB, GROUP
from tunewright_cli.approvers import approvers
from tunewright_cli.cluster.errors import ApiError, ForbiddenError
from tunewright_cli.cluster.rbac import read_bindings, read_roles
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.kinds import Kind
from tunewright_cli.parse import Target
from tunewright_cli.session import Session

_WORDS = {"approve": "Approved", "reject": "Rejected"}


def run(target: Target, verb: str, *, version: str, reason: str, yes: bool) -> Exit:
    """Show what is decided about, ask, and write spec.approval."""
    session = Session(target)
    found = session.find(Kind.VERSION, version)
    version, digest = found["metadata"]["name"], found["spec"]["artifact"]["digest"]
    user = whoami(session)
    if not yes:
        _show(session, found)
        if not _confirmed(f"{verb.capitalize()} {version} ({digest}) as {user}? [y/N] "):
            raise CliError("nothing was decided: answer y, or give --yes", Exit.REFUSED)
    decision = {"decision": _WORDS[verb], "approvedBy": user, "digest": digest, "reason": reason or None}
    try:
        session.api.merge(Kind.VERSION.path(session.namespace, version), {"spec": {"approval": decision}})
    except ForbiddenError as error:
        raise CliError(f"{error}. {_who_may(session)}", Exit.REFUSED) from None
    sys.stdout.write(f"{version} is {_WORDS[verb].lower()} by {user} for {digest}\n")
    return Exit.OK


def whoami(session: Session) -> str:
    """The user name by which the apiserver knows us."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer: Any = session.api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    return str(answer["status"]["userInfo"]["username"])


def _who_may(session: Session) -> str:
    """Who may decide, as far as we may read the roles."""
    try:
        names = approvers(read_roles(session.api, session.namespace), read_bindings(session.api, session.namespace))
    except ApiError:
        return f"Ask who has the verb {APPROVE_VERB} on modelversions.{GROUP} in namespace {session.namespace}"
    return f"Who may: {', '.join(names)}" if names else "Nobody but cluster administrators may decide yet"


def _show(session: Session, version: dict[str, Any]) -> None:
    from tunewright_cli.chain import Objects, build_chain
    from tunewright_cli.console import make_console
    from tunewright_cli.views.chain import render_chain
    from tunewright_cli.views.style import now_utc

    objects = Objects.of(session.namespace, (), (version,), ())
    chain = build_chain({"kind": Kind.VERSION.title, "name": version["metadata"]["name"]}, objects)
    make_console().print(render_chain(chain, now_utc(), wide=True))


def _confirmed(question: str) -> bool:
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
