"""The chart's life on a real apiserver: installed, upgraded, removed and installed again."""

from pathlib import Path

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.fixtures import ApiServerFactory
from tests.helm import CHART, NAMESPACE, helm, rendered

CRDS = {f"{plural}.tunewright.io" for plural in ("finetunejobs", "modelversions", "inferenceservices")}
PLURALS = {
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
