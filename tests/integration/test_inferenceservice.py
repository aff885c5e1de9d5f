"""ModelVersion and InferenceService on a real control plane: the real operator with the chart's permissions.

The Deployment and Job controllers are real, the pods have no node: the test plays the kubelet and writes their status.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.apiserver import ControlPlane, running_apiserver
from e2e.cluster.wait import wait_for
from tests.helm import HelmError, helm
from tests.kstatus import KStatus, kstatus
from tests.operator_process import USER, install_chart, running_operator, settled_writes
from tunewright_api.names import LABEL_KIND, LABEL_REVISION, LABEL_VERSION
from tunewright_api.results import Outcome, StageResult, VerifyResult
from tunewright_operator.rbac import VERBS

pytestmark = pytest.mark.timeout(300)

Object = dict[str, Any]

DIGEST = "sha256:" + "a" * 64
ADMIN = "tunewright-admin"
GROUP = "/apis/tunewright.io/v1alpha1"


@dataclass(frozen=True)
class Team:
    """A namespace and what happens in it."""

    plane: ControlPlane
    name: str

    @property
    def ours(self) -> str:
        return f"{GROUP}/namespaces/{self.name}"

    def items(self, path: str, **labels: str) -> list[Object]:
        """Objects of a kind in the namespace, with these labels."""
        group, _, plural = path.rpartition("/")
        root = f"/apis/{group}" if group else "/api/v1"
        found: list[Object] = self.plane.api.get(f"{root}/namespaces/{self.name}/{plural}")["items"]
        return [one for one in found if labels.items() <= (one["metadata"].get("labels") or {}).items()]

    def register(self, number: str) -> str:
        """Create ModelVersion guide-NUMBER."""
        spec = {
            "modelName": "guide",
            "version": number,
            "kind": "Full",
            "artifact": {"uri": f"pvc://data/{number}", "digest": DIGEST, "format": "Safetensors", "sizeBytes": 1},
            "baseModel": {"uri": "pvc://data/base"},
        }
        name = f"guide-{number}"
        self.plane.api.create(f"{self.ours}/modelversions", self._object("ModelVersion", name, spec))
        return name

    def serve(self, version: str) -> None:
        """Create InferenceService guide."""
        spec = {"model": {"versionRef": {"name": version}}}
        self.plane.api.create(f"{self.ours}/inferenceservices", self._object("InferenceService", "guide", spec))

    def _object(self, kind: str, name: str, spec: Object) -> Object:
        metadata = {"name": name, "namespace": self.name}
        return {"apiVersion": "tunewright.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}

    def decide(self, version: str, decision: str | None) -> None:
        """Approve, reject or (None) take the decision back."""
        approval = {"decision": decision, "approvedBy": ADMIN, "digest": DIGEST, "reason": "tested"}
        patch = {"spec": {"approval": approval if decision else None}}
        self.plane.api.merge(f"{self.ours}/modelversions/{version}", patch)

    def move(self, version: str) -> None:
        """Change what the service serves."""
        patch = {"spec": {"model": {"versionRef": {"name": version}}}}
        self.plane.api.merge(f"{self.ours}/inferenceservices/guide", patch)

    def version(self, name: str) -> Object:
        return self._get(f"modelversions/{name}")

    def service(self) -> Object:
        return self._get("inferenceservices/guide")

    def _get(self, path: str) -> Object:
        found: Object = self.plane.api.get(f"{self.ours}/{path}")
        return found

    def pods(self, **labels: str) -> list[Object]:
        return [pod for pod in self.items("pods", **labels) if not pod["metadata"].get("deletionTimestamp")]

    def play_kubelet(self, pod: Object, status: Object) -> None:
        """Write a pod's status."""
        path = f"/api/v1/namespaces/{self.name}/pods/{pod['metadata']['name']}/status"
        self.plane.api.merge(path, {"status": status})

    def verify(self, version: str, result: StageResult, exit_code: int = 0) -> None:
        """Wait for the verification's pod and end it."""
        labels = {LABEL_KIND: "ModelVersion", "tunewright.io/name": version}
        wait_for("the verification", lambda: bool(self.pods(**labels)), 30)
        end = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": result.to_message()}
        status = {"phase": "Failed" if exit_code else "Succeeded", **container("verify", {"terminated": end})}
        self.play_kubelet(self.pods(**labels)[0], status)

    def run_server(self, version: str, state: Object, *, ready: bool, restarts: int = 0, **more: Object) -> None:
        """Wait for the pod that serves a version and give it a state."""
        wait_for(f"the pod of {version}", lambda: bool(self.pods(**{LABEL_VERSION: version})), 30)
        (pod,) = self.pods(**{LABEL_VERSION: version})
        since = "2026-01-01T00:00:00Z"
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": since},
        ]
        containers = container("server", state, ready=ready, restarts=restarts, **more)
        self.play_kubelet(pod, {"phase": "Running", "conditions": conditions, **containers})

    def selected(self) -> str | None:
        """Version of the revision that the service's own Service selects."""
        services = self.items("services", **{LABEL_KIND: "InferenceService"})
        own = [service for service in services if service["metadata"]["name"] == "guide"]
        if not own:
            return None
        revision = own[0]["spec"]["selector"][LABEL_REVISION]
        for deployment in self.deployments():
            if deployment["metadata"]["labels"][LABEL_REVISION] == revision:
                return str(deployment["metadata"]["labels"][LABEL_VERSION])
        return None

    def deployments(self) -> list[Object]:
        return self.items("apps/v1/deployments")

    def expect(self, read: Callable[[], Object], **want: str) -> Object:
        """Wait until these conditions are there (Type="Status/Reason"; "" for an absent one)."""

        def matches() -> bool:
            found = {c["type"]: f"{c['status']}/{c['reason']}" for c in read()["status"].get("conditions", ())}
            return all(found.get(kind, "") == value for kind, value in want.items())

        wait_for(f"{want}", matches, 30, hint=lambda: json.dumps(read()["status"], indent=1))
        return read()


def container(name: str, state: Object, *, ready: bool = False, restarts: int = 0, **more: Object) -> Object:
    """containerStatuses with one container."""
    status = {"name": name, "image": "x", "imageID": "x", "ready": ready, "restartCount": restarts, "state": state}
    return {"containerStatuses": [status | more]}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
VERIFIED = StageResult(outcome=Outcome.SUCCEEDED, verify=VerifyResult(digest=DIGEST, size_bytes=1))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with controllers, the chart and the operator."""
    directory: Path = tmp_path_factory.mktemp("serving")
    with running_apiserver(directory / "plane", controllers=True) as plane:
        install_chart(plane)
        with running_operator(plane, directory) as operator:
            yield plane
            assert operator.alive(), operator.log.read_text()
        assert "Traceback" not in operator.log.read_text()


@pytest.fixture
def team(plane: ControlPlane, request: pytest.FixtureRequest) -> Team:
    """A namespace of the test's own, which enforces Pod Security `restricted`, with a claim."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    plane.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for("the namespace's account", lambda: plane.exists(accounts), 30)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    plane.api.create(f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
    return Team(plane, name)


def run_in_shell(plane: ControlPlane, command: str) -> None:
    """Run a command that a status says to run, as somebody with a kubeconfig would."""
    environment = os.environ | {"KUBECONFIG": str(plane.kubeconfig)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def approved(team: Team, number: str) -> str:
    """A verified and approved version."""
    name = team.register(number)
    team.verify(name, VERIFIED)
    team.expect(lambda: team.version(name), Verified="True/DigestMatches")
    team.decide(name, "Approved")
    return name


def test_a_version_is_verified_then_approved(team: Team) -> None:
    name = team.register("v1")
    seen = team.expect(lambda: team.version(name), Ready="False/Unschedulable", Reconciling="True/Unschedulable")
    assert kstatus(seen) is KStatus.IN_PROGRESS
    team.verify(name, VERIFIED)
    seen = team.expect(
        lambda: team.version(name), Ready="True/Verified", Approved="Unknown/AwaitingDecision", Reconciling=""
    )
    assert kstatus(seen) is KStatus.CURRENT
    wait_for("the Job to go", lambda: not team.items("batch/v1/jobs"), 30)
    wait_for("its configuration to go", lambda: not team.items("configmaps", **{LABEL_KIND: "ModelVersion"}), 30)
    run_in_shell(team.plane, seen["status"]["message"].split("To approve: ")[1])
    seen = team.expect(lambda: team.version(name), Approved="True/Approved")
    assert seen["status"]["message"] == f"approved by {ADMIN}: WHY"
    team.plane.kubectl("wait", "-n", team.name, f"modelversion/{name}", "--for=condition=Approved", "--timeout=10s")
    assert settled_writes(team.plane, 5) == []


def test_a_changed_file_is_named(team: Team) -> None:
    name = team.register("v1")
    changed = "model/config.json was changed after export: restore it, or register a new version"
    team.verify(name, StageResult(outcome=Outcome.FAILED, reason="DigestMismatch", message=changed), exit_code=77)
    seen = team.expect(lambda: team.version(name), Verified="False/DigestMismatch", Stalled="True/DigestMismatch")
    assert changed in seen["status"]["message"]
    assert kstatus(seen) is KStatus.FAILED
    (job,) = team.items("batch/v1/jobs")
    assert job["status"]["failed"] == 1, "a wrong digest is not tried again"


def verification(team: Team) -> str:
    """What is left of the verifications of this namespace."""
    labels = f"{LABEL_KIND}=ModelVersion"
    return team.plane.kubectl("get", "jobs,configmaps", "-n", team.name, "-l", labels, "-o", "name")


def test_a_service_waits_for_approval_and_answers(team: Team) -> None:
    name = team.register("v1")
    team.serve("guide-v1")
    seen = team.expect(team.service, Ready="False/NotApproved", Reconciling="True/NotApproved")
    assert kstatus(seen) is KStatus.IN_PROGRESS
    assert team.deployments() == []
    team.decide(name, "Approved")
    team.expect(team.service, Ready="False/NotVerified")
    team.verify(name, VERIFIED)
    team.expect(team.service, Ready="False/Unschedulable")
    wait_for("the verification removed", lambda: verification(team) == "", 30)
    team.run_server(name, RUNNING, ready=False)
    team.expect(team.service, Ready="False/Loading", Reconciling="True/Loading")
    team.run_server(name, RUNNING, ready=True)
    seen = team.expect(team.service, Ready="True/Serving", Reconciling="", Stalled="")
    assert kstatus(seen) is KStatus.CURRENT
    assert seen["status"]["url"] == f"http://guide.{team.name}.svc.cluster.local/v1"
    assert seen["status"]["stable"]["readyReplicas"] == 1
    team.plane.kubectl("wait", "-n", team.name, "tis/guide", "--for=condition=Ready", "--timeout=10s")
    assert settled_writes(team.plane, 5) == []


def test_a_server_that_refuses_its_configuration_is_told_with_its_own_words(team: Team) -> None:
    name = approved(team, "v1")
    team.serve(name)
    words = StageResult(outcome=Outcome.FAILED, reason="InvalidConfig", message="max_model_len is too large")
    crash = {"terminated": {"exitCode": 64, "reason": "Error", "message": words.to_message()}}
    team.run_server(name, {"waiting": {"reason": "CrashLoopBackOff"}}, ready=False, restarts=1, lastState=crash)
    seen = team.expect(team.service, Ready="False/InvalidConfig", Stalled="True/InvalidConfig", Reconciling="")
    assert kstatus(seen) is KStatus.FAILED
    assert "max_model_len is too large" in seen["status"]["message"]
    assert seen["status"]["lastFailure"]["exitCode"] == 64
    team.run_server(name, RUNNING, ready=True, restarts=2)
    seen = team.expect(team.service, Ready="True/Serving", Stalled="")
    assert "lastFailure" not in seen["status"]


def test_the_next_version_takes_over_without_a_gap(team: Team) -> None:
    first, second = approved(team, "v1"), approved(team, "v2")
    team.serve(first)
    team.run_server(first, RUNNING, ready=True)
    team.expect(team.service, Ready="True/Serving", Reconciling="")
    team.move(second)
    team.run_server(second, RUNNING, ready=False)
    seen = team.expect(team.service, Ready="True/Serving", Reconciling="True/Starting")
    assert seen["status"]["stable"]["version"] == first
    assert team.selected() == first
    team.run_server(second, RUNNING, ready=True)
    seen = team.expect(team.service, Ready="True/Serving", Reconciling="")
    assert seen["status"]["stable"]["version"] == second
    assert team.selected() == second
    wait_for("the old pods to go", lambda: len(team.deployments()) == 1, 30)


def test_taking_back_the_approval_stops_the_service(team: Team) -> None:
    name = approved(team, "v1")
    team.serve(name)
    team.run_server(name, RUNNING, ready=True)
    team.expect(team.service, Ready="True/Serving")
    team.decide(name, None)
    team.expect(team.service, Ready="False/NotApproved", Reconciling="True/NotApproved")
    wait_for("the pods to go", lambda: not team.deployments(), 30)
    team.decide(name, "Rejected")
    team.expect(team.service, Accepted="False/Rejected", Stalled="True/Rejected")


def test_helm_waits_exactly_until_the_service_answers(team: Team, tmp_path: Path) -> None:
    """Helm 4 waits by kstatus: it must neither return while the model loads nor hang when it answers."""
    name = approved(team, "v1")
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: guide\nversion: 0.1.0\n")
    spec = {"model": {"versionRef": {"name": name}}}
    manifest = {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "guide"},
        "spec": spec,
    }
    (chart / "templates" / "service.yaml").write_text(json.dumps(manifest))
    location = ("--namespace", team.name, "--kubeconfig", str(team.plane.kubeconfig))
    errors: list[Exception] = []

    def install() -> None:
        try:
            helm("install", "guide", str(chart), *location, "--wait", "--timeout", "60s")
        except HelmError as error:
            errors.append(error)

    waiting = threading.Thread(target=install)
    waiting.start()
    team.run_server(name, RUNNING, ready=False)
    team.expect(team.service, Ready="False/Loading")
    waiting.join(3)
    assert waiting.is_alive(), "helm returned while the model was being loaded"
    team.run_server(name, RUNNING, ready=True)
    waiting.join(30)
    assert not waiting.is_alive()
    assert errors == []


def test_deleting_the_objects_leaves_nothing(team: Team) -> None:
    name = approved(team, "v1")
    team.serve(name)
    wait_for("the Deployment", lambda: bool(team.deployments()), 30)
    team.plane.kubectl("delete", "-n", team.name, "tis,mv", "--all", "--timeout=30s")
    children = ("apps/v1/deployments", "batch/v1/jobs", "services", "pods")
    wait_for("the children to go", lambda: not any(team.items(kind) for kind in children), 60)
    left = [one["metadata"]["name"] for one in team.items("configmaps")]
    assert left == ["kube-root-ca.crt"]


def test_the_operator_used_no_verb_that_is_not_in_its_list(plane: ControlPlane) -> None:
    """The last test of the module: everything above is in the audit log."""
    used = {
        (event.group, event.resource + (f"/{event.subresource}" if event.subresource else ""), event.verb)
        for event in plane.audit.events(user=USER)
        if event.resource
    }
    assert {one for one in used if one[2] not in VERBS.get(one[:2], ())} == set()
    assert [event for event in plane.audit.events(user=USER) if event.code == 403] == []
