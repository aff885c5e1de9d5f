"""Approvals: is the policy there that guards them, and may anybody give one."""

from tunewright_cli.approvers import approvers
from tunewright_cli.checks.finding import Finding, broken, ok, unknown, warning
from tunewright_cli.checks.snapshot import Snapshot

POLICY = "tunewright-approval"
_UPGRADE = "upgrade the chart (helm upgrade): it holds the policy and its binding"


def policy(snapshot: Snapshot) -> Finding | None:
    """Without the policy whoever may patch a version may approve it, under any name."""
    if snapshot.policy.missing:
        sentence = f"the ValidatingAdmissionPolicy {POLICY} is missing: whoever may edit a ModelVersion can approve it"
        return broken("Approval", sentence, _UPGRADE)
    if snapshot.policy.value is None:
        return unknown("Approval", f"the ValidatingAdmissionPolicy {POLICY}", snapshot.policy)
    warnings = (snapshot.policy.value.get("status", {}).get("typeChecking") or {}).get("expressionWarnings")
    if warnings:
        return warning(
            "Approval", f"the policy {POLICY} does not fit its kind: {warnings[0].get('warning', '')}", _UPGRADE
        )
    return None


def binding(snapshot: Snapshot) -> Finding | None:
    """A policy without a binding that denies does nothing."""
    if snapshot.policy.value is None:
        return None
    if snapshot.binding.missing:
        sentence = f"the ValidatingAdmissionPolicyBinding {POLICY} is missing: the policy is not in force"
        return broken("Approval", sentence, _UPGRADE)
    if snapshot.binding.value is None:
        return unknown("Approval", f"the ValidatingAdmissionPolicyBinding {POLICY}", snapshot.binding)
    spec = snapshot.binding.value["spec"]
    if "Deny" not in (spec.get("validationActions") or ()):
        actions = ", ".join(spec.get("validationActions") or ())
        return broken("Approval", f"the binding {POLICY} only says {actions}, and denies nothing", _UPGRADE)
    return ok("Approval", "the policy guards spec.approval")


def somebody_may(snapshot: Snapshot) -> Finding | None:
    """Nothing is served before somebody has approved it."""
    for seen in (snapshot.roles, snapshot.role_bindings):
        if seen.error:
            return unknown("Approvers", "who may approve", seen)
    names = approvers(snapshot.roles.items, snapshot.role_bindings.items)
    if names:
        return ok("Approvers", f"{len(names)} may approve: {', '.join(names[:3])}")
    fix = "kubectl -n NAMESPACE create rolebinding approvers --clusterrole=tunewright-approve --user=USER"
    return warning("Approvers", "nobody but cluster administrators may approve a model", fix)
