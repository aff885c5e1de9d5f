"""The chart, as the real helm renders it."""

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from tests.helm import CHART, NAMESPACE, HelmError, helm, of_kind, rendered, template
from tests.restricted import violations
from tunewright_operator.config import OperatorConfig
from tunewright_operator.rbac import VERBS

Object = dict[str, Any]

# Every value that changes what is rendered, at once.
EVERYTHING = (
    "operator.watchNamespaces={a,b}",
    "operator.priorityClassName=system",
    "operator.nodeSelector.zone=a",
    "operator.tolerations[0].key=gpu",
    "operator.podAnnotations.note=x",
    "operator.inMesh=true",
    "prometheus.url=http://prometheus.monitoring:9090",
    "images.pullSecrets={registry}",
    "serviceAccount.annotations.role=x",
)
DIGEST = "sha256:" + "a" * 64


def only(kind: str, *sets: str) -> Object:
    """The one object of this kind."""
    (found,) = of_kind(rendered(*sets), kind)
    return found


def test_helm_finds_nothing_to_criticise() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--namespace", NAMESPACE)


def test_rendering_twice_gives_the_same_bytes() -> None:
    arguments = ("template", "tunewright", str(CHART), "--namespace", NAMESPACE)
    assert helm(*arguments) == helm(*arguments)


@pytest.mark.parametrize("sets", [(), EVERYTHING], ids=["defaults", "every value set"])
def test_every_pod_passes_restricted(sets: tuple[str, ...]) -> None:
    templates = [one["spec"]["template"] for one in of_kind(rendered(*sets), "Deployment", "Job", "DaemonSet")]
    assert templates
    assert [found for pod in templates for found in violations(pod["spec"])] == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("images.operator=tunewright/operator", "images/operator"),
        ("images.server=server@sha256:abc", "images/server"),
        ("images.pullPolicy=always", "'Always', 'IfNotPresent', 'Never'"),
        ("operator.logLevel=debug", "'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ("operator.progressIntervalSeconds=0", "operator/progressIntervalSeconds"),
        ("operator.watchNamespaces={Team_A}", "operator/watchNamespaces/0"),
        ("operator.inMesh=yes", "operator/inMesh"),
        ("prometheus.url=prometheus.monitoring:9090", "prometheus/url"),
        ("operator.replicas=2", "additional properties 'replicas' not allowed"),
        ("rbac.aggregateToDefaultRoles=perhaps", "rbac/aggregateToDefaultRoles"),
        ("image.operator=x:1", "additional properties 'image' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, says: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(value)
    assert says in str(refused.value)


@pytest.mark.parametrize("image", ["op:1", "host:5000/a/op:v1", f"host/op@{DIGEST}", f"host:5000/a/op:v1@{DIGEST}"])
def test_images_take_a_tag_a_digest_or_both(image: str) -> None:
    (container,) = only("Deployment", f"images.operator={image}")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


def test_the_role_is_the_operators_own_list() -> None:
    role = next(one for one in of_kind(rendered(), "ClusterRole") if one["metadata"]["name"] == "tunewright-operator")
    granted: dict[tuple[str, str], frozenset[str]] = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for pair in ((group, resource) for group in rule["apiGroups"] for resource in rule["resources"]):
            assert pair not in granted, f"{pair} is granted twice"
            granted[pair] = frozenset(rule["verbs"])
    assert granted == VERBS


def test_the_operator_may_do_nothing_outside_the_namespaces_that_it_watches() -> None:
    def grants(*sets: str) -> list[tuple[str, str | None, str]]:
        bindings = of_kind(rendered(*sets), "ClusterRoleBinding", "RoleBinding")
        return [(one["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]) for one in bindings]

    assert grants() == [("ClusterRoleBinding", None, "tunewright-operator")]
    assert sorted(grants("operator.watchNamespaces={a,b}")) == [
        ("RoleBinding", "a", "tunewright-operator"),
        ("RoleBinding", "b", "tunewright-operator"),
    ]


def test_only_the_approvers_role_can_approve() -> None:
    holders = [
        role["metadata"]["name"]
        for role in of_kind(rendered(), "ClusterRole", "Role")
        if any({"approve", "*"} & set(rule["verbs"]) for rule in role["rules"])
    ]
    assert holders == ["tunewright-approve"]


def test_the_approvers_role_is_part_of_no_other() -> None:
    labels = {role["metadata"]["name"]: role["metadata"]["labels"] for role in of_kind(rendered(), "ClusterRole")}
    aggregated = {name: sorted(key for key in given if "aggregate-to" in key) for name, given in labels.items()}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert aggregated == {
        "tunewright-operator": [],
        "tunewright-view": [f"{prefix}admin", f"{prefix}edit", f"{prefix}view"],
        "tunewright-edit": [f"{prefix}admin", f"{prefix}edit"],
        "tunewright-approve": [],
    }
    off = of_kind(rendered("rbac.aggregateToDefaultRoles=false"), "ClusterRole")
    assert not any("aggregate-to" in key for role in off for key in role["metadata"]["labels"])


@pytest.mark.parametrize("sets", [(), EVERYTHING], ids=["defaults", "every value set"])
def test_the_operator_reads_the_environment_that_the_chart_writes(sets: tuple[str, ...]) -> None:
    (container,) = only("Deployment", *sets)["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value", NAMESPACE) for entry in container["env"]}
    config = OperatorConfig.from_env(env)
    assert config.namespace == NAMESPACE
    assert config.watch_namespaces == (("a", "b") if sets else ())
    assert config.prometheus_url == ("http://prometheus.monitoring:9090" if sets else "")
    assert config.in_mesh is bool(sets)
    assert (config.trainer_image, config.server_image) == ("tunewright/trainer:0.1.0", "tunewright/server:0.1.0")
    assert {port["containerPort"] for port in container["ports"]} == {config.port}


def test_in_a_mesh_the_operator_starts_after_its_sidecar() -> None:
    pods = [only("Deployment", *sets)["spec"]["template"]["metadata"] for sets in ((), ("operator.inMesh=true",))]
    assert [pod["labels"].get("sidecar.istio.io/inject") for pod in pods] == [None, "true"]
    configs = [pod["annotations"].get("proxy.istio.io/config", "{}") for pod in pods]
    assert [json.loads(config) for config in configs] == [{}, {"holdApplicationUntilProxyStarts": True}]


def test_what_a_user_says_about_the_sidecar_holds() -> None:
    own = r"operator.podAnnotations.proxy\.istio\.io/config=concurrency: 1"
    pod = only("Deployment", "operator.inMesh=true", own)["spec"]["template"]["metadata"]
    assert pod["annotations"]["proxy.istio.io/config"] == "concurrency: 1"


def test_the_service_finds_the_operator() -> None:
    selector = only("Service")["spec"]["selector"]
    assert selector.items() <= only("Deployment")["spec"]["template"]["metadata"]["labels"].items()


def test_crds_are_kept_and_small_enough_for_a_plain_apply() -> None:
    """kubectl apply stores the object in an annotation of at most 256 KiB."""
    for crd in of_kind(rendered(), "CustomResourceDefinition"):
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert len(yaml.safe_dump(crd)) < 200_000


def test_the_charts_crds_are_the_ones_in_crds() -> None:
    ours = {}
    for path in (CHART.parents[1] / "crds").glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())
        ours[crd["metadata"]["name"]] = crd["spec"]
    assert {crd["metadata"]["name"]: crd["spec"] for crd in of_kind(rendered(), "CustomResourceDefinition")} == ours


def test_every_value_is_commented() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = re.compile(r"^  [a-zA-Z]+:")  # second level: the values themselves
    bare = [line for before, line in itertools.pairwise(lines) if top.match(line) and "#" not in before]
    assert bare == []


def test_nothing_but_the_crds_outlives_the_release() -> None:
    kept = [
        one["kind"] for one in rendered() if "helm.sh/resource-policy" in (one["metadata"].get("annotations") or {})
    ]
    assert set(kept) == {"CustomResourceDefinition"}
    assert not any("helm.sh/hook" in str(one["metadata"].get("annotations")) for one in rendered())
