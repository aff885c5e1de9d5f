"""Who may decide about a ModelVersion: the chart's admission policy against a real apiserver and real users."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.errors import ClusterError
from e2e.cluster.wait import wait_for
from tests.helm import NAMESPACE as SYSTEM
from tests.helm import of_kind, rendered

Object = dict[str, Any]

NAMESPACE = "approval"
DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
OLIVIA = "olivia@example.com"  # may edit and approve
OPERATOR = "tunewright"  # its ServiceAccount
DEV = "dev@example.com"  # may edit


def version(name: str, approval: Object | None = None) -> Object:
    """A ModelVersion called guide-NAME."""
    spec: Object = {
        "modelName": "guide",
        "version": name,
        "kind": "Full",
        "artifact": {"uri": "pvc://data/guide", "digest": DIGEST, "format": "Safetensors", "sizeBytes": 1},
        "baseModel": {"uri": "pvc://data/base"},
    }
    if approval:
        spec["approval"] = approval
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": f"guide-{name}", "namespace": NAMESPACE},
        "spec": spec,
    }


def decision(by: str, digest: str = DIGEST, verdict: str = "Approved") -> Object:
    """A value of spec.approval."""
    return {"decision": verdict, "approvedBy": by, "digest": digest, "reason": "it answers well"}


@pytest.fixture(scope="module")
def guarded(apiserver: ControlPlane) -> Iterator[ControlPlane]:
    """An apiserver with the chart's CRDs, roles and policy, and two users in one namespace."""
    objects = of_kind(
        rendered(),
        "CustomResourceDefinition",
        "ClusterRole",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    )
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    bindings = [
        {
            **binding,
            "metadata": {"name": f"{role}-{number}", "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"tunewright-{role}"},
            "subjects": [{"kind": "User", "name": user}],
        }
        for number, (role, user) in enumerate([("edit", OLIVIA), ("edit", DEV), ("approve", OLIVIA)])
    ]
    # The operator's own account, with more than the chart gives it: it must not approve even so.
    operator = {
        **binding,
        "metadata": {"name": "operator", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tunewright-approve"},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM}],
    }
    accounts = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": OPERATOR, "namespace": SYSTEM},
        },
    ]
    documents = yaml.safe_dump_all([*objects, *accounts, *bindings, operator])
    apiserver.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=documents)
    wait_for("the CRD served", lambda: apiserver.exists("/apis/tunewright.io/v1alpha1"), 30)
    wait_for("the policy enforced", lambda: _is_enforced(apiserver), 30)
    yield apiserver
    for name in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        apiserver.kubectl("delete", name, "tunewright-approval")


def _is_enforced(plane: ControlPlane) -> bool:
    """The apiserver reads policies by watch: a moment passes until they hold."""
    try:
        plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(version("probe", decision("nobody"))))
    except ClusterError as error:
        return "your own user name" in str(error)
    return False


class User:
    """kubectl as somebody."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self._plane = plane
        self._kubeconfig = plane.kubeconfig_for(name)

    def create(self, manifest: Object) -> str:
        """kubectl create."""
        return self._plane.kubectl("create", "-f", "-", stdin=json.dumps(manifest), kubeconfig=self._kubeconfig)

    def decide(self, name: str, approval: Object | None) -> str:
        """Merge-patch spec.approval; None removes it."""
        patch = json.dumps({"spec": {"approval": approval}})
        return self.patch(name, patch)

    def patch(self, name: str, patch: str, *arguments: str) -> str:
        """kubectl patch."""
        return self._plane.kubectl(
            *("patch", "modelversion", f"guide-{name}", "-n", NAMESPACE, "--type=merge", "-p", patch, *arguments),
            kubeconfig=self._kubeconfig,
        )


@pytest.fixture
def olivia(guarded: ControlPlane) -> User:
    """May approve."""
    return User(guarded, OLIVIA)


@pytest.fixture
def dev(guarded: ControlPlane) -> User:
    """May edit, not approve."""
    return User(guarded, DEV)


Read = Callable[[str], Object]


@pytest.fixture
def read(guarded: ControlPlane) -> Read:
    """The stored spec of guide-NAME."""

    def get(name: str) -> Object:
        path = f"/apis/tunewright.io/v1alpha1/namespaces/{NAMESPACE}/modelversions/guide-{name}"
        spec: Object = guarded.api.get(path)["spec"]
        return spec

    return get


def test_who_holds_the_verb_approves_under_the_own_name(olivia: User, dev: User, read: Read) -> None:
    dev.create(version("allowed"))
    olivia.decide("allowed", decision(OLIVIA))
    assert read("allowed")["approval"] == decision(OLIVIA)


def test_who_holds_the_verb_changes_the_mind_and_takes_it_back(olivia: User, dev: User, read: Read) -> None:
    dev.create(version("mind"))
    olivia.decide("mind", decision(OLIVIA))
    olivia.decide("mind", decision(OLIVIA, verdict="Rejected"))
    assert read("mind")["approval"]["decision"] == "Rejected"
    olivia.decide("mind", None)
    assert "approval" not in read("mind")


def test_without_the_verb_nobody_approves(dev: User, read: Read) -> None:
    dev.create(version("verb"))
    with pytest.raises(ClusterError) as refused:
        dev.decide("verb", decision(DEV))
    assert f"user {DEV} may not write spec.approval: it needs the verb approve on modelversions" in str(refused.value)
    assert f"kubectl -n {NAMESPACE} create rolebinding approve --clusterrole=tunewright-approve" in str(refused.value)
    assert "approval" not in read("verb")


def test_an_approval_cannot_be_smuggled_in_at_creation(dev: User) -> None:
    with pytest.raises(ClusterError, match=r"may not write spec\.approval"):
        dev.create(version("smuggled", decision(DEV)))


def test_nobody_approves_under_another_name(olivia: User, dev: User) -> None:
    dev.create(version("name"))
    with pytest.raises(ClusterError, match=f"must be your own user name: write {OLIVIA}, not {DEV}"):
        olivia.decide("name", decision(DEV))


def test_nobody_approves_another_digest(olivia: User, dev: User) -> None:
    dev.create(version("digest"))
    with pytest.raises(ClusterError, match=r"approval\.digest must be"):
        olivia.decide("digest", decision(OLIVIA, OTHER_DIGEST))


def test_without_the_verb_nobody_removes_or_changes_a_decision(olivia: User, dev: User, read: Read) -> None:
    dev.create(version("kept"))
    olivia.decide("kept", decision(OLIVIA))
    with pytest.raises(ClusterError, match=r"may not write spec\.approval"):
        dev.decide("kept", None)
    with pytest.raises(ClusterError, match=r"may not write spec\.approval"):
        dev.patch("kept", '{"spec":{"approval":{"reason":"another reason"}}}')
    assert read("kept")["approval"] == decision(OLIVIA)


def test_everything_but_the_decision_needs_no_verb(olivia: User, dev: User) -> None:
    dev.create(version("labels"))
    olivia.decide("labels", decision(OLIVIA))
    dev.patch("labels", '{"metadata":{"labels":{"team":"docs"}}}')


def test_the_operator_never_approves_even_with_the_verb(guarded: ControlPlane, dev: User) -> None:
    dev.create(version("operator"))
    name = f"system:serviceaccount:{SYSTEM}:{OPERATOR}"
    kubeconfig = guarded.service_account_kubeconfig(SYSTEM, OPERATOR)
    patch = json.dumps({"spec": {"approval": decision(name)}})
    with pytest.raises(ClusterError, match="the operator never decides"):
        guarded.kubectl(
            *("patch", "modelversion", "guide-operator", "-n", NAMESPACE, "--type=merge", "-p", patch),
            kubeconfig=kubeconfig,
        )


def test_the_policy_raises_no_type_warnings(guarded: ControlPlane) -> None:
    """The apiserver type-checks the expressions against the CRD where its controllers run; here they parse."""
    policy = guarded.api.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/tunewright-approval")
    assert policy.get("status", {}).get("typeChecking", {}).get("expressionWarnings", []) == []
