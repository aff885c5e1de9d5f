"""The chart's life on a real apiserver: installed, upgraded, removed and installed again."""

from pathlib import Path

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.fixtures import ApiServerFactory
from e2e.cluster.wait import wait_for
from tests.helm import CHART, NAMESPACE, helm, rendered
from tests.operator_process import USER, install_chart, running_operator
from tests.serving import version

CRDS = {f"{plural}.tunewright.io" for plural in ("finetunejobs", "modelversions", "inferenceservices")}
PLURALS = {
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "CustomResourceDefinition": "customresourcedefinitions",
    "Deployment": "deployments",
    "Service": "services",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def on(plane: ControlPlane, *arguments: str | Path) -> str:
    """Run helm on this apiserver."""
    return helm(*map(str, arguments), "--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE)


def installed(plane: ControlPlane) -> set[str]:
    """Names of everything of the kinds that the chart renders, with the release's mark."""
    kinds = ",".join(PLURALS[one["kind"]] for one in rendered())
    arguments = ("get", kinds, "--all-namespaces", "-l", "app.kubernetes.io/part-of=tunewright", "-o", "name")
    return {line.split("/", 1)[1] for line in plane.kubectl(*arguments).split()}


def may_read_secrets(plane: ControlPlane, namespace: str) -> bool:
    """Whether the operator may, in this namespace."""
    attributes = {"namespace": namespace, "verb": "get", "resource": "secrets"}
    review = {"spec": {"user": USER, "resourceAttributes": attributes}}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    answer = plane.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", kind | review)
    return bool(answer["status"]["allowed"])


def test_the_operator_starts_with_rights_in_its_namespaces_only(
    apiserver_factory: ApiServerFactory, tmp_path: Path
) -> None:
    plane = apiserver_factory()
    plane.kubectl("create", "namespace", "team")
    install_chart(plane, "operator.watchNamespaces={team}")
    assert may_read_secrets(plane, "team")
    assert not may_read_secrets(plane, "default")
    with running_operator(plane, tmp_path, TUNEWRIGHT_WATCH_NAMESPACES="team") as operator:
        path = "/apis/tunewright.io/v1alpha1/namespaces/team/modelversions"
        plane.api.create(path, version())

        def told() -> bool:
            return "ClaimNotFound" in str(plane.api.get(f"{path}/guide-v1").get("status"))

        wait_for("a status", told, 60, hint=lambda: operator.log.read_text()[-2000:])
        # The order of NOTES.txt: the operator lets its objects go, then nothing of its finalizer is left.
        kinds = "finetunejobs,modelversions,inferenceservices"
        plane.kubectl("delete", kinds, "--all", "--all-namespaces", "--timeout=30s")
        assert operator.alive()
    assert [e for e in plane.audit.events(user=USER) if e.code == 403] == []


def test_uninstalling_leaves_the_crds_and_nothing_else(apiserver_factory: ApiServerFactory) -> None:
    plane = apiserver_factory()
    notes = on(plane, "install", "tunewright", CHART, "--create-namespace")
    assert "create rolebinding approvers --clusterrole=tunewright-approve" in notes
    assert installed(plane) == {one["metadata"]["name"] for one in rendered()}

    on(plane, "upgrade", "tunewright", CHART, "--set", "operator.logLevel=DEBUG")
    assert "DEBUG" in plane.kubectl("get", "deployment", "tunewright", "-n", NAMESPACE, "-o", "yaml")

    on(plane, "uninstall", "tunewright")
    assert installed(plane) == CRDS
    assert plane.kubectl("get", "configmaps,secrets,roles,rolebindings", "-n", NAMESPACE, "-o", "name") == ""

    on(plane, "install", "tunewright", CHART)
    assert installed(plane) == {one["metadata"]["name"] for one in rendered()}
