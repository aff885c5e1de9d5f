"""examples/llama-3-70b on two simulated nodes of eight A100s: accepted, scheduled, run to its end, served, removed.

The containers are played by tests/integration/kubelet.py; apiserver, scheduler, controllers and operator are real.
On the way the operator uses every verb of its role, so the last test can hold the role to exactly those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.build import binary
from e2e.cluster.controlplane import fake_node
from e2e.cluster.wait import wait_for
from tests.integration.conftest import OPERATOR_USER, ROOT, Namespace, Operator, conditions
from tests.integration.kubelet import Kubelet, Play
from tunewright_api.names import ANNOTATION_SPEC_HASH
from tunewright_operator.rbac import VERBS

Object = dict[str, Any]

EXAMPLE = ROOT / "examples" / "llama-3-70b"
JOB, VERSION = "support-70b", "support-70b-v1"
GPU = "nvidia.com/gpu"
NODES = ("a100-0", "a100-1")


_ISTIO = ("networking.istio.io/v1/virtualservices", "networking.istio.io/v1/destinationrules")
_SECURITY = ("security.istio.io/v1/peerauthentications", "security.istio.io/v1/authorizationpolicies")
# change of spec.traffic -> what it makes
ROUTES = {
    "{access: {namespaces: [shop]}}": tuple(f"/apis/{kind}" for kind in (*_ISTIO, *_SECURITY)),
    "{provider: GatewayAPI, access: null, hashHeader: null, gateways: [shop/main]}": (
        "/apis/gateway.networking.k8s.io/v1/httproutes",
    ),
}


def gpu_node(name: str) -> Object:
    """An 8xA100 node, tainted as GPU operators do."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    node = fake_node(name, {GPU: "8", "cpu": "96", "memory": "1Ti"}, labels)
    return node | {"spec": {"taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]}}


@pytest.fixture(scope="module")
def llama(plane: ControlPlane, kubelet: Kubelet) -> Namespace:
    """Nodes, volume and storage.yaml; no other node of the control plane has a GPU."""
    plane.add_nodes(*map(gpu_node, NODES))
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "llama"},
        "spec": {
            "capacity": {"storage": "1Ti"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": "llama", "name": "llama"},
        },
    }
    plane.api.create("/api/v1/persistentvolumes", volume)
    plane.kubectl("apply", "-f", str(EXAMPLE / "storage.yaml"))
    crds = [argument for name in ("istio", "gateway-api") for argument in ("-f", str(binary(f"{name}-crds.yaml")))]
    plane.kubectl("apply", "--server-side", "--force-conflicts", *crds)
    return Namespace(plane, "llama")


@pytest.fixture(scope="module")
def operator(llama: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for all tests of this module."""
    log: Path = tmp_path_factory.mktemp("llama") / "operator.log"
    # The example is judged by metrics; here nothing gets so far as to be measured.
    process = Operator(llama.plane, llama.name, log, {"TUNEWRIGHT_PROMETHEUS_URL": "http://prometheus.example:9090"})
    process.start()
    yield process
    process.stop()
    print(process.tail())


@pytest.fixture(scope="module")
def training(llama: Namespace, operator: Operator, kubelet: Kubelet) -> list[Object]:
    """The training pods while they run; afterwards the job goes on to its end."""
    kubelet.scripts[llama.name] = lambda stage, attempt, index: Play(None) if stage == "train" else None
    llama.plane.kubectl("apply", "-f", str(EXAMPLE / "finetunejob.yaml"))
    llama.wait_job("training", lambda status: status.get("stage") == "Training", name=JOB)
    path = "/api/v1/namespaces/llama/pods?labelSelector=tunewright.io%2Fstage%3Dtrain"
    pods: list[Object] = llama.plane.api.get(path)["items"]
    for suspend, stage in ((True, "Suspended"), (False, "Training")):
        llama.plane.api.merge(llama.path("finetunejobs", JOB), {"spec": {"suspend": suspend}})
        llama.wait_job(stage, lambda status, stage=stage: status.get("stage") == stage, name=JOB)
    network = f"{JOB}-train"
    change_manifest(llama, "/api/v1", "configmaps", f"{JOB}-config")
    change_manifest(llama, "/api/v1", "services", network)
    change_manifest(llama, "/apis/networking.k8s.io/v1", "networkpolicies", network)
    del kubelet.scripts[llama.name]
    return pods


def change_manifest(llama: Namespace, root: str, plural: str, name: str, *, owner: str = "") -> None:
    """As a new release of the operator would that builds another manifest: it applies this child again."""
    path = f"{root}/namespaces/{llama.name}/{plural}/{name}"
    llama.plane.api.merge(path, {"metadata": {"annotations": {ANNOTATION_SPEC_HASH: "of an older release"}}})
    if owner:  # what is listed and not watched is looked at when the owner is
        llama.plane.api.merge(owner, {"metadata": {"annotations": {"example.com/looked-at": plural}}})

    def applied() -> bool:
        return len(str(llama.plane.api.get(path)["metadata"]["annotations"][ANNOTATION_SPEC_HASH])) == 16

    wait_for(f"{name} applied again", applied, 30)


def test_each_node_gets_one_pod_with_all_its_gpus(training: list[Object]) -> None:
    assert sorted(pod["spec"]["nodeName"] for pod in training) == list(NODES)
    for pod in training:
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"][GPU] == "8"
        assert container["resources"]["requests"][GPU] == "8"


def test_the_job_runs_to_a_registered_version(llama: Namespace, training: list[Object]) -> None:
    job = llama.wait_job("the job ended", lambda status: "Complete" in conditions(status), name=JOB)
    assert job["status"]["modelVersionRef"] == {"name": VERSION}
    wait_for(
        "the version verified",
        lambda: conditions(version(llama).get("status") or {}).get("Verified") == ("True", "DigestMatches"),
        60,
    )


def test_an_approved_version_is_served_and_a_withdrawn_one_is_not(llama: Namespace, training: list[Object]) -> None:
    digest = version(llama)["spec"]["artifact"]["digest"]
    approval = {"decision": "Approved", "approvedBy": "tunewright-admin", "digest": digest}
    path = llama.path("modelversions", VERSION)
    llama.plane.api.merge(path, {"spec": {"approval": approval}})
    service = yaml.safe_load((EXAMPLE / "inferenceservice.yaml").read_text())
    service["spec"]["replicas"] = 0  # nothing here plays vLLM
    llama.plane.api.create(llama.path("inferenceservices"), service)

    def deployments() -> list[Object]:
        return llama.list("/apis/apps/v1/deployments")

    wait_for("the server's Deployment", deployments, 60)
    (container,) = deployments()[0]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"][GPU] == "8"
    change_manifest(llama, "/apis/apps/v1", "deployments", deployments()[0]["metadata"]["name"])
    change_manifest(llama, "/apis/policy/v1", "poddisruptionbudgets", service["metadata"]["name"])
    for provider, kinds in ROUTES.items():
        route(llama, service["metadata"]["name"], provider, kinds)
    plain = {"provider": "None", "gateways": None}
    llama.plane.api.merge(llama.path("inferenceservices", service["metadata"]["name"]), {"spec": {"traffic": plain}})
    routes = f"/apis/gateway.networking.k8s.io/v1/namespaces/{llama.name}/httproutes"
    wait_for("the route gone", lambda: not llama.plane.api.get(routes)["items"], 60)
    llama.plane.api.merge(path, {"spec": {"approval": None}})
    wait_for("the Deployment gone", lambda: not deployments(), 60)


def route(llama: Namespace, service: str, traffic: str, kinds: tuple[str, ...]) -> None:
    """Let this provider route, and its objects be those of an older release; those of the one before go."""
    llama.plane.api.merge(llama.path("inferenceservices", service), {"spec": {"traffic": yaml.safe_load(traffic)}})
    for kind in kinds:
        root, plural = kind.rsplit("/", 1)
        path = f"{root}/namespaces/{llama.name}/{plural}/{service}"
        wait_for(f"{plural} {service}", lambda path=path: llama.plane.exists(path), 90)
        change_manifest(llama, root, plural, service, owner=llama.path("inferenceservices", service))


def test_what_is_finished_is_cleaned_up_but_for_job_and_version(llama: Namespace, training: list[Object]) -> None:
    llama.plane.api.merge(llama.path("finetunejobs", JOB), {"spec": {"ttlSecondsAfterFinished": 0}})
    remaining = ("jobs", "pods", "networkpolicies")
    wait_for("children gone", lambda: not any(llama.children()[kind] for kind in remaining), 60)
    assert "Complete" in conditions(llama.job(JOB)["status"])
    assert llama.children()["modelversions"] == [VERSION]


def test_the_role_holds_exactly_the_verbs_that_were_used(llama: Namespace, training: list[Object]) -> None:
    used = set()
    for event in llama.plane.audit.events(user=OPERATOR_USER):
        resource = f"{event.resource}/{event.subresource}" if event.subresource else event.resource
        used.add((event.group, resource, event.verb))
    allowed = {(*resource, verb) for resource, verbs in VERBS.items() for verb in verbs}
    # Discovery has no resource.
    assert {entry for entry in used if entry[1]} == allowed


def version(llama: Namespace) -> Object:
    """The ModelVersion of the job."""
    found: Object = llama.plane.api.get(llama.path("modelversions", VERSION))
    return found
