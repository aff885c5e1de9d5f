"""`check`: a healthy installation, and each way to break it with the sentence and the fix that it gets."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from tests import cli_objects as make
from tests.unit.cli.conftest import NOW
from tests.unit.cli.conftest import Snapshot as Screen
from tunewright_api.crd import build_crds
from tunewright_api.inferenceservice import InferenceServiceSpec, ServedModel, VersionRef
from tunewright_api.traffic import Traffic, TrafficProvider
from tunewright_cli.checks import CHECKS, Finding, Level, Snapshot, run_checks
from tunewright_cli.checks.snapshot import Seen
from tunewright_cli.survey import NEEDS, TRAFFIC_NEEDS
from tunewright_cli.views.check import render_findings
from tunewright_operator.rbac import VERBS

Object = dict[str, Any]

MISSING = Seen(missing=True, error="not found")
DENIED = Seen(error='nodes is forbidden: User "dev" cannot list resource "nodes"', denied=True)
PROMETHEUS = "http://prometheus.monitoring:9090"
PINNED = "registry.example/tunewright@sha256:" + "a" * 64
DEFAULT_CLASS = {"storageclass.kubernetes.io/is-default-class": "true"}


@cache
def crds() -> dict[str, Object]:
    """The definitions of this version, by plural."""
    return {crd["spec"]["names"]["plural"]: crd for crd in build_crds().values()}


def named(name: str, namespace: str = "", **fields: Any) -> Object:
    """An object with metadata."""
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("meta", {})}
    return {"metadata": meta, **fields}


def operator(**status: Any) -> Object:
    """The operator's Deployment."""
    env = {
        "TUNEWRIGHT_TRAINER_IMAGE": PINNED,
        "TUNEWRIGHT_SERVER_IMAGE": PINNED,
        "TUNEWRIGHT_PROMETHEUS_URL": PROMETHEUS,
        "TUNEWRIGHT_WATCH_NAMESPACES": "",
    }
    container = {"image": PINNED, "env": [{"name": name, "value": value} for name, value in env.items()]}
    spec = {"replicas": 1, "template": {"spec": {"serviceAccountName": "tunewright", "containers": [container]}}}
    return named("tunewright", "tunewright-system", spec=spec, status=status or {"availableReplicas": 1})


def with_env(deployment: Object, name: str, value: str) -> Object:
    """The Deployment with another value of a variable."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = [one if one["name"] != name else {"name": name, "value": value} for one in container["env"]]
    return deployment | {
        "spec": {"replicas": 1, "template": {"spec": {"containers": [container | {"env": env}]}}},
    }


def role(name: str, *verbs: str) -> Object:
    """A ClusterRole on modelversions."""
    rules = [{"apiGroups": ["tunewright.io"], "resources": ["modelversions"], "verbs": list(verbs)}]
    return named(name, rules=rules, kind="ClusterRole")


def binding(name: str, role_name: str) -> Object:
    """A RoleBinding of olivia."""
    return named(
        name,
        "team",
        roleRef={"kind": "ClusterRole", "name": role_name},
        subjects=[{"kind": "User", "name": "olivia@example.com"}],
    )


def claim(name: str = "data", phase: str = "Bound", modes: tuple[str, ...] = ("ReadWriteMany",), **spec: Any) -> Object:
    """A claim of the team."""
    return named(name, make.NAMESPACE, spec={"accessModes": list(modes), **spec}, status={"phase": phase})


def space(name: str = make.NAMESPACE, **labels: str) -> Object:
    """A namespace that enforces `restricted`."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    return named(name, meta={"labels": enforced | labels})


def by_provider(provider: TrafficProvider) -> Object:
    """A service whose traffic this provider splits."""
    gateways = ["infra/gateway"] if provider is TrafficProvider.GATEWAY_API else None
    spec = InferenceServiceSpec(
        model=ServedModel(version_ref=VersionRef(name="guide-v1")),
        traffic=Traffic(provider=provider, gateways=gateways),
    )
    return make.service(spec=spec)


def healthy() -> Snapshot:
    """An installation in which a job trains, and a canary goes on behind Istio."""
    return Snapshot(
        server="https://cluster.example:6443",
        namespace=make.NAMESPACE,
        now=NOW,
        server_time=NOW,
        version=Seen({"major": "1", "minor": "34+", "gitVersion": "v1.34.4"}),
        may_read={plural: Seen(True) for plural in crds()},
        crds={plural: Seen(crd) for plural, crd in crds().items()},
        expected_crds=crds(),
        operators=Seen([operator()]),
        operator_pods=Seen([]),
        denied=Seen([]),
        policy=Seen(named("tunewright-approval")),
        binding=Seen(named("tunewright-approval", spec={"validationActions": ["Deny"]})),
        roles=Seen([role("tunewright-approve", "get", "approve"), role("cluster-admin", "*")]),
        role_bindings=Seen([binding("approvers", "tunewright-approve")]),
        jobs=Seen([make.job(status=make.training_job())]),
        versions=Seen([make.version()]),
        services=Seen([make.service(spec=make.canary("guide-v1"), status=make.rolling())]),
        groups=Seen(["apps", "networking.istio.io", "security.istio.io", "gateway.networking.k8s.io"]),
        istiods=Seen([named("istiod", "istio-system", status={"availableReplicas": 1})]),
        istio_roots=Seen([named("istio-ca-root-cert", "team")]),
        gateway_classes=Seen([]),
        istio_cni=Seen([]),
        prometheus=Seen("Prometheus Server is Ready."),
        storage_classes=Seen([named("standard", meta={"annotations": DEFAULT_CLASS})]),
        claims=Seen([claim()]),
        nodes=Seen([named("node-1", status={"allocatable": {"cpu": "8"}})]),
        namespaces=Seen([space()]),
    )


def followed_by_alias() -> Object:
    service = make.service()
    service["spec"]["model"] = {"alias": {"modelName": "guide", "name": "production"}}
    del service["status"]["stable"]
    return service


def pod(status: Object) -> Seen:
    """The operator's pod."""
    return Seen([make.pod("tunewright-1", status=status)])


def waiting(reason: str, message: str = "", **more: Any) -> Seen:
    """The operator's pod, whose container waits."""
    state = {"state": {"waiting": {"reason": reason, "message": message}}, **more}
    return pod({"phase": "Pending", "containerStatuses": [state]})


def older_crds() -> dict[str, Seen]:
    """CRDs from before there was a rollout."""
    crd = crds()["inferenceservices"]
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    fields = {name: field for name, field in spec["properties"].items() if name != "rollout"}
    older = schema | {"properties": schema["properties"] | {"spec": spec | {"properties": fields}}}
    spec_of = crd["spec"] | {"versions": [version | {"schema": {"openAPIV3Schema": older}}]}
    return {plural: Seen(one) for plural, one in crds().items()} | {"inferenceservices": Seen(crd | {"spec": spec_of})}


def gpu_job(count: str) -> Object:
    """A job that wants GPUs on each node."""
    job = make.job(status=make.training_job())
    return job | {"spec": job["spec"] | {"resourcesPerNode": {"nvidia.com/gpu": count}}}


def unavailable(**changes: Any) -> Callable[[Snapshot], Snapshot]:
    """The operator's Deployment has no pod that is ready."""
    return lambda now: replace(now, operators=Seen([operator(replicas=1)]), **changes)


def change(**fields: Any) -> Callable[[Snapshot], Snapshot]:
    """The snapshot with other fields."""
    return lambda now: replace(now, **fields)


def unseen(namespace: str) -> Object:
    """A service that nobody has looked at for a quarter of an hour."""
    service = make.service(namespace=namespace)
    return service | {"status": {"observedGeneration": -1}}


B, W, U = Level.BROKEN, Level.WARNING, Level.UNKNOWN
NOT_ISTIO = Seen(["apps", "gateway.networking.k8s.io"])
MESHED = space(**{"istio-injection": "enabled"})
QUOTA = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}]
NO_NODE = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]}
UNAVAILABLE = make.rolling().model_copy(update={"analysis": make.analysis(reason="PrometheusUnavailable")})

# how it is broken -> (the change, how bad, the check, words of the sentence, words of the fix)
WAYS: dict[str, tuple[Callable[[Snapshot], Snapshot], Level, str, str, str]] = {
    "no cluster": (
        lambda _: Snapshot(unreachable="no cluster is configured, ~/.kube/config does not exist: set KUBECONFIG"),
        B,
        "Cluster",
        "no cluster is configured",
        "set KUBECONFIG",
    ),
    "an old Kubernetes": (
        change(version=Seen({"major": "1", "minor": "29", "gitVersion": "v1.29.9"})),
        B,
        "Kubernetes",
        "v1.29.9",
        "1.30",
    ),
    "a wrong clock": (change(now=NOW + timedelta(minutes=5)), W, "Clock", "300 s ahead", "NTP"),
    "no permission": (
        change(may_read={"finetunejobs": Seen(True), "modelversions": Seen(False)}),
        B,
        "Permission",
        "you may not list modelversions in namespace team",
        "--clusterrole=tunewright-view",
    ),
    "CRDs missing": (
        lambda now: replace(now, crds=dict(now.crds) | {"modelversions": MISSING}),
        B,
        "CRDs",
        "modelversions.tunewright.io not installed",
        "helm install",
    ),
    "CRDs of another owner": (
        lambda now: replace(
            now,
            crds=dict(now.crds)
            | {
                "modelversions": Seen(
                    crds()["modelversions"]
                    | {"status": {"conditions": [{"type": "NamesAccepted", "status": "False", "message": "mv in use"}]}}
                )
            },
        ),
        B,
        "CRDs",
        "is not accepted: mv in use",
        "remove the other definition",
    ),
    "CRDs that are older": (change(crds=older_crds()), B, "CRDs", "inferenceservices.spec.rollout", "helm upgrade"),
    "no operator": (change(operators=Seen([])), B, "Operator", "there is no Deployment", "helm install"),
    "two operators": (
        change(operators=Seen([operator(), operator()])),
        B,
        "Operator",
        "2 operators run",
        "helm uninstall",
    ),
    "an operator scaled to zero": (
        change(operators=Seen([operator() | {"spec": operator()["spec"] | {"replicas": 0}}])),
        B,
        "Operator",
        "scaled to zero",
        "--replicas=1",
    ),
    "an image that cannot be pulled": (
        unavailable(operator_pods=waiting("ImagePullBackOff", "not found")),
        B,
        "Operator",
        "ImagePullBackOff): not found",
        "images.operator",
    ),
    "an operator that crashes": (
        unavailable(
            operator_pods=waiting(
                "CrashLoopBackOff",
                restartCount=4,
                lastState={"terminated": {"exitCode": 1, "message": "TUNEWRIGHT_PORT is 'x': write a number above 0"}},
            )
        ),
        B,
        "Operator",
        "CrashLoopBackOff after 4 restarts): TUNEWRIGHT_PORT is 'x'",
        "logs tunewright-1 --previous",
    ),
    "no node for the operator": (unavailable(operator_pods=pod(NO_NODE)), B, "Operator", "no node", "add a node"),
    "an operator that needs more memory": (
        unavailable(
            operator_pods=pod(
                {"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}
            )
        ),
        B,
        "Operator",
        "OOMKilled",
        "limits.memory",
    ),
    "a quota that refuses the operator": (
        change(operators=Seen([operator(conditions=QUOTA)])),
        B,
        "Operator",
        "exceeded quota",
        "raise the quota",
    ),
    "an operator without its role": (
        change(denied=Seen(["create batch/jobs", "watch pods"])),
        B,
        "Operator's role",
        "may not create batch/jobs, watch pods",
        "helm upgrade",
    ),
    "images without digests": (
        change(operators=Seen([with_env(operator(), "TUNEWRIGHT_SERVER_IMAGE", "tunewright/server:0.1.0")])),
        W,
        "Images",
        "images.server has no digest",
        "@sha256:",
    ),
    "a namespace that is not watched": (
        change(
            operators=Seen([with_env(operator(), "TUNEWRIGHT_WATCH_NAMESPACES", "team")]),
            services=Seen([unseen("shop")]),
        ),
        B,
        "Namespaces",
        "does not watch shop",
        "operator.watchNamespaces",
    ),
    "an object that nobody looks at": (
        change(services=Seen([unseen("team")])),
        B,
        "Namespaces",
        "has not looked at team/guide",
        "logs deployment/tunewright",
    ),
    "no approval policy": (change(policy=MISSING), B, "Approval", "tunewright-approval is missing", "helm upgrade"),
    "a policy that is not bound": (change(binding=MISSING), B, "Approval", "not in force", "helm upgrade"),
    "a policy that only warns": (
        change(binding=Seen(named("b", spec={"validationActions": ["Warn"]}))),
        B,
        "Approval",
        "denies nothing",
        "helm upgrade",
    ),
    "nobody may approve": (
        change(role_bindings=Seen([binding("admins", "cluster-admin")])),
        W,
        "Approvers",
        "nobody but cluster administrators",
        "--clusterrole=tunewright-approve",
    ),
    "no Istio, and a service asks for it": (
        change(groups=NOT_ISTIO),
        B,
        "Istio",
        "team/guide asks for Istio",
        "istioctl install",
    ),
    "no istiod": (
        change(istiods=Seen([]), istio_roots=Seen([])),
        B,
        "Istio",
        "no istiod runs",
        "istioctl install",
    ),
    "an istiod that is down": (
        change(istiods=Seen([named("istiod", "istio-system", status={})])),
        B,
        "Istio",
        "no pod that is ready",
        "describe pods -l app=istiod",
    ),
    "an istiod elsewhere": (change(istiods=Seen([])), W, "Istio", "one outside of it", "remote"),
    "no Gateway API, and a service asks for it": (
        change(services=Seen([by_provider(TrafficProvider.GATEWAY_API)]), groups=Seen(["apps"])),
        B,
        "Gateway API",
        "asks for the Gateway API",
        "install its CRDs",
    ),
    "sidecars that Pod Security refuses": (
        change(namespaces=Seen([MESHED])),
        B,
        "Pod Security",
        "sidecars",
        "CNI plugin",
    ),
    "a canary without Prometheus": (
        change(operators=Seen([with_env(operator(), "TUNEWRIGHT_PROMETHEUS_URL", "")])),
        B,
        "Prometheus",
        "knows no Prometheus",
        "prometheus.url",
    ),
    "a Prometheus that does not answer": (
        change(prometheus=Seen(missing=True, error="no endpoints available")),
        B,
        "Prometheus",
        "no endpoints available",
        "start Prometheus",
    ),
    "a Prometheus that the operator cannot reach": (
        change(services=Seen([make.service(spec=make.canary(), status=UNAVAILABLE)])),
        B,
        "Prometheus",
        "did not answer at the last check of team/guide",
        "prometheus.url",
    ),
    "no default StorageClass": (
        change(storage_classes=Seen([])),
        W,
        "Storage",
        "no StorageClass is the default",
        "is-default-class=true",
    ),
    "a claim that waits for a default StorageClass": (
        change(storage_classes=Seen([]), claims=Seen([claim(phase="Pending")])),
        B,
        "Storage",
        "team/data waits",
        "name a class",
    ),
    "a claim that does not exist": (
        change(claims=Seen([])),
        B,
        "Claims",
        "job team/guide names the claim data",
        "create the PersistentVolumeClaim data",
    ),
    "a claim for one node, and two that write": (
        change(claims=Seen([claim(modes=("ReadWriteOnce",))])),
        B,
        "Claims",
        "from 2 nodes",
        "ReadWriteMany",
    ),
    "a volume that is gone": (change(claims=Seen([claim(phase="Lost")])), B, "Claims", "is gone", "restore"),
    "a volume that is gone, behind an alias": (
        change(
            jobs=Seen([]),
            versions=Seen([make.version(aliases=["production"])]),
            services=Seen([followed_by_alias()]),
            claims=Seen([claim(phase="Lost")]),
        ),
        B,
        "Claims",
        "is gone",
        "restore",
    ),
    "GPUs wanted, and none there": (change(jobs=Seen([gpu_job("8")])), B, "GPUs", "no node offers", "device plugin"),
    "more GPUs wanted than a node has": (
        change(jobs=Seen([gpu_job("8")]), nodes=Seen([named("n", status={"allocatable": {"nvidia.com/gpu": "4"}})])),
        B,
        "GPUs",
        "largest node has 4",
        "fewer GPUs per node",
    ),
    "nodes that we may not see": (
        change(jobs=Seen([gpu_job("8")]), nodes=DENIED),
        U,
        "GPUs",
        "forbidden",
        "administrator",
    ),
    "a namespace without Pod Security": (
        change(namespaces=Seen([named("team", meta={"labels": {}})])),
        W,
        "Pod Security",
        "enforces no Pod Security level",
        "enforce=restricted",
    ),
}


def test_a_healthy_installation_has_nothing_to_fix(snapshot: Screen) -> None:
    findings = run_checks(healthy())
    assert {finding.level for finding in findings} == {Level.OK}
    snapshot("check-healthy", render_findings(findings))


@pytest.mark.parametrize("way", WAYS)
def test_each_broken_installation_gets_a_sentence_and_a_fix(way: str) -> None:
    breaks, level, check, sentence, fix = WAYS[way]
    bad = [finding for finding in run_checks(breaks(healthy())) if finding.level is not Level.OK]
    assert [(finding.check, finding.level) for finding in bad] == [(check, level)], bad
    assert sentence in bad[0].message
    assert fix in bad[0].fix


def test_every_resource_of_the_operators_role_is_asked_about() -> None:
    asked = {(group, resource) for group, resource, _, _ in (*NEEDS, *TRAFFIC_NEEDS)}
    assert asked == {(group, resource.partition("/")[0]) for group, resource in VERBS}


def test_every_way_can_be_told_apart() -> None:
    told = [run_checks(breaks(healthy())) for breaks, *_ in WAYS.values()]
    assert len({str([one for one in findings if one.level is not Level.OK]) for findings in told}) == len(WAYS) >= 12


def test_who_may_see_nothing_gets_no_false_alarm() -> None:
    blind = replace(
        healthy(),
        operators=DENIED,
        roles=DENIED,
        policy=DENIED,
        nodes=DENIED,
        claims=DENIED,
        storage_classes=DENIED,
        namespaces=DENIED,
        istiods=DENIED,
        istio_roots=DENIED,
    )
    findings = run_checks(blind)
    assert {finding.level for finding in findings} == {Level.OK, Level.UNKNOWN}
    assert {finding.check for finding in findings if finding.level is Level.UNKNOWN} >= {
        "Operator",
        "Approval",
        "Istio",
    }


def test_an_unused_part_is_not_asked_for() -> None:
    """Nobody uses Istio, Prometheus or GPUs: their absence is nobody's business."""
    plain = replace(
        healthy(),
        services=Seen([by_provider(TrafficProvider.NONE)]),
        groups=Seen(["apps"]),
        istiods=Seen([]),
        operators=Seen([with_env(operator(), "TUNEWRIGHT_PROMETHEUS_URL", "")]),
        prometheus=Seen(None),
    )
    assert {finding.check for finding in run_checks(plain)} & {"Istio", "Prometheus", "GPUs", "Gateway API"} == set()


def test_a_broken_installation_as_people_see_it(snapshot: Screen) -> None:
    now = healthy()
    for way in ("an operator that crashes", "no istiod", "GPUs wanted, and none there", "a wrong clock"):
        now = WAYS[way][0](now)
    now = replace(now, role_bindings=DENIED)
    snapshot("check-broken", render_findings(run_checks(now)))


def test_every_check_says_what_it_finds() -> None:
    assert all((check.__doc__ or "").strip() for check in CHECKS)
    assert len(CHECKS) == len(set(CHECKS))
    assert Finding("a", Level.OK, "b").to_dict() == {"check": "a", "level": "OK", "message": "b", "fix": ""}
