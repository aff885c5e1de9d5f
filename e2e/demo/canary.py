"""The steps of the canary, one function each; the demo tells them and the scenarios test them.

They go on from the quickstart: its namespace, its roles, its claim, and guide-v1, the version that it trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import web
from e2e.cluster.mesh import Mesh
from e2e.cluster.wait import wait_for
from e2e.demo import quickstart
from e2e.demo.kubectl import Kubectl, is_true, poll
from e2e.demo.load import Load
from e2e.demo.quickstart import NAMESPACE, DemoError

Object = dict[str, Any]

EXAMPLE = quickstart.ROOT / "examples" / "canary"
MODEL, ALIAS, SERVICE = "guide", "production", "guide"
FIRST, BETTER, WORSE = "guide-v1", "guide-v2", "guide-v3"
# ModelVersion -> the FineTuneJob that makes it, and its file in the example.
JOBS = {BETTER: ("guide-2", "finetunejob-v2.yaml"), WORSE: ("guide-3", "finetunejob-v3.yaml")}
# As pods reach the Prometheus of the cluster.
PROMETHEUS = "http://prometheus.monitoring:9090"
_PODS = f"tunewright.io/kind=InferenceService,tunewright.io/name={SERVICE}"


def manifest(name: str = "inferenceservice.yaml") -> str:
    """One file of the example."""
    return (EXAMPLE / name).read_text()


def host() -> str:
    """The name by which the gateway knows the service."""
    name: str = yaml.safe_load(manifest())["spec"]["traffic"]["hosts"][0]
    return name


def service(kubectl: Kubectl) -> Object:
    """The InferenceService as it is now; DemoError when it is not there."""
    found = kubectl.get("inferenceservice", SERVICE, NAMESPACE)
    if found is None:
        raise DemoError(f"there is no InferenceService {SERVICE} in namespace {NAMESPACE}")
    return found


def load(mesh: Mesh, *, clients: int = 4, max_tokens: int = 8) -> Load:
    """People who ask the quickstart's questions at the gateway."""
    prompts = [question.prompt for question in quickstart.read_questions()]
    return Load(mesh.gateway_url, host(), SERVICE, prompts, clients=clients, max_tokens=max_tokens)


def is_served(kubectl: Kubectl) -> bool:
    """Whether the quickstart was run here: its service is there, and its version is approved."""
    if kubectl.get("namespace", NAMESPACE, NAMESPACE) is None:
        return False
    version = kubectl.get("modelversion", FIRST, NAMESPACE)
    return bool(version and is_true(version, "Approved") and kubectl.get("inferenceservice", SERVICE, NAMESPACE))


def install(kubectl: Kubectl, images: dict[str, str]) -> None:
    """Upgrade the chart: the operator learns where Prometheus is."""
    quickstart.install(kubectl, images, {"prometheus.url": PROMETHEUS})


def watch(kubectl: Kubectl, mesh: Mesh) -> None:
    """Give Prometheus the chart's recording rules and alerts."""
    config_map = kubectl.get("configmap", f"{quickstart.RELEASE}-rules", quickstart.OPERATOR_NAMESPACE)
    if config_map is None:
        raise DemoError("the chart made no ConfigMap with rules")
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, name) for name in config_map["data"]]
        for file in files:
            file.write_text(config_map["data"][file.name])
        mesh.add_rules(*files)


def start_over(kubectl: Kubectl, image: str) -> None:
    """Remove a service that has left its beginning (the first version, no rollout, this server image), so that the
    canary can be run again."""
    found = kubectl.get("inferenceservice", SERVICE, NAMESPACE)
    deployments = kubectl.list("deployments", NAMESPACE, "-l", _PODS)
    images = {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in deployments}
    if found and (not is_fresh(found) or images != {image}):
        kubectl.run("delete", "inferenceservice", SERVICE, "-n", NAMESPACE, "--wait=true", "--timeout=60s")


def is_fresh(found: Object) -> bool:
    """Whether the first version serves, and there was no rollout yet."""
    status = found.get("status") or {}
    stable = status.get("stable") or {}
    return stable.get("version") == FIRST and not (status.get("candidate") or status.get("history"))


def join_mesh(kubectl: Kubectl, mesh: Mesh, timeout: float = 400) -> Object:
    """Apply the example's service, and return once it answers at the gateway."""
    kubectl.apply(manifest())

    def joined(found: Object) -> bool:
        provider = (found["status"].get("traffic") or {}).get("provider")
        return is_true(found, "Stalled") or (is_true(found, "Ready") and provider == "Istio")

    found = poll(lambda: service(kubectl), joined, timeout)
    if not is_true(found, "Ready"):
        raise DemoError(f"InferenceService {SERVICE} is not ready: {found['status'].get('message')}")
    wait_for(f"an answer at {mesh.gateway_url} as {host()}", lambda: answers(mesh), 60, interval=0.5)
    return found


def answers(mesh: Mesh) -> bool:
    """Whether the gateway has a route to a pod of the service."""
    try:
        return web.ask(f"{mesh.gateway_url}/v1/models", headers={"Host": host()})[0] == 200
    except OSError:
        return False


def train(kubectl: Kubectl, version: str, follow: Callable[[str], Object]) -> Object | None:
    """The job that makes a version, run to its end by `follow` (which gets its name); None when the version exists."""
    name, file = JOBS[version]
    if kubectl.get("modelversion", version, NAMESPACE):
        return None
    kubectl.apply(manifest(file))
    return follow(name)


def approve(kubectl: Kubectl, name: str) -> str:
    """Approve a version once its files are verified; returns its digest."""
    version = quickstart.verified_version(kubectl, name)
    digest: str = version["spec"]["artifact"]["digest"]
    if not is_true(version, "Approved"):
        kubectl.as_user(quickstart.APPROVER).apply(approval(name, digest))
    return digest


def approval(name: str, digest: str) -> str:
    """approval.yaml for this version."""
    return manifest("approval.yaml").replace("${VERSION}", name).replace("${DIGEST}", digest)


def move_alias(kubectl: Kubectl, name: str) -> None:
    """Give the alias to this version alone, as somebody of the product team."""
    developer = kubectl.as_user(quickstart.DEVELOPER)
    for version in kubectl.list("modelversions", NAMESPACE):
        aliases = version["spec"].get("aliases") or []
        wanted = [one for one in aliases if one != ALIAS] + [ALIAS] * (version["metadata"]["name"] == name)
        if version["spec"]["modelName"] == MODEL and sorted(wanted) != sorted(aliases):
            patch = yaml.safe_dump({"spec": {"aliases": wanted}})
            developer.run(
                *("patch", "modelversion", version["metadata"]["name"], "-n", NAMESPACE, "--type=merge", "-p", patch)
            )


def follow_rollout(
    kubectl: Kubectl, version: str, seen: Callable[[Object], None] = lambda _: None, timeout: float = 600
) -> Object:
    """Call `seen` with each state of the service until the version is promoted or rolled back, and return the last
    state; DemoError when neither comes."""

    def ended(found: Object) -> bool:
        seen(found)
        return bool(outcome(found, version))

    try:
        return poll(lambda: service(kubectl), ended, timeout)
    except TimeoutError as error:
        raise DemoError(f"{version} is neither promoted nor rolled back: {error}") from error


def outcome(found: Object, version: str) -> str:
    """promoted, rolled back, or nothing while the rollout of the version goes on (or has not begun)."""
    status = found.get("status") or {}
    if status.get("candidate"):
        return ""
    if (status.get("rejected") or {}).get("version") == version:
        return "rolled back"
    return "promoted" if (status.get("stable") or {}).get("version") == version else ""


def wait_retired(kubectl: Kubectl) -> None:
    """Return once the revision that lost its traffic is gone, pods included."""

    def gone() -> bool:
        return len(kubectl.list("pods", NAMESPACE, "-l", _PODS)) == 1

    wait_for("one revision left", gone, 120, interval=1)


def requests_by_version(mesh: Mesh) -> dict[str, int]:
    """How many requests of clients the pods of each version answered in the last hour, as Prometheus counted them."""
    series = f'tunewright_requests_total{{namespace="{NAMESPACE}",inference_service="{SERVICE}",source="client"}}'
    samples = mesh.query(f"sum by (model_version) (max_over_time({series}[1h]))")
    return {one["metric"]["model_version"]: round(float(one["value"][1])) for one in samples}
