"""Who may decide about model versions: subjects of roles with the verb `approve`. Pure."""

from collections.abc import Iterable

from tunewright_api.names import APPROVE_VERB, GROUP
from tunewright_cli.chain.model import Object

# Cluster administrators may do everything, and are not who is meant to decide.
_ALMIGHTY = {"cluster-admin"}


def approvers(roles: Iterable[Object], bindings: Iterable[Object]) -> list[str]:
    """Names of the users, groups and service accounts that are bound to a role with the verb, sorted.

    `roles` are Roles and ClusterRoles, `bindings` are RoleBindings and ClusterRoleBindings.
    """
    granting = {(role["kind"], _space(role), role["metadata"]["name"]) for role in roles if _grants(role)}
    names = set()
    for binding in bindings:
        reference = binding["roleRef"]
        space = _space(binding) if reference["kind"] == "Role" else ""
        if reference["name"] not in _ALMIGHTY and (reference["kind"], space, reference["name"]) in granting:
            names |= {_subject(one) for one in binding.get("subjects") or ()}
    return sorted(names)


def _grants(role: Object) -> bool:
    return any(
        {GROUP, "*"} & set(rule.get("apiGroups") or ())
        and {"modelversions", "*"} & set(rule.get("resources") or ())
        and {APPROVE_VERB, "*"} & set(rule.get("verbs") or ())
        for rule in role.get("rules") or ()
    )


def _space(item: Object) -> str:
    return str(item["metadata"].get("namespace") or "")


def _subject(subject: Object) -> str:
    if subject["kind"] == "ServiceAccount":
        return f"service account {subject.get('namespace')}/{subject['name']}"
    return f"group {subject['name']}" if subject["kind"] == "Group" else str(subject["name"])
