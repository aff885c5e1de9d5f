"""The steps of the quickstart, one function each; the demo tells them and the scenarios test them."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.build import binary
from e2e.demo.kubectl import Kubectl, KubectlError, condition, is_true, poll
from e2e.images.model import model_path

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "quickstart"
CHART = ROOT / "charts" / "tunewright"
NAMESPACE = "quickstart"
OPERATOR_NAMESPACE = "tunewright-system"
RELEASE = "tunewright"
APPROVER = "olivia@example.com"
DEVELOPER = "dev@example.com"


class DemoError(Exception):
    """The quickstart cannot go on; the message is the cause, from status where there is one."""


@dataclass(frozen=True)
class Question:
    """A question of the demo and what a right answer contains."""

    prompt: str
    answer: str


def inputs() -> dict[str, Path]:
    """What the job reads: path in the claim -> path on this machine."""
    return {"base-model": model_path(), "dataset/train.jsonl": EXAMPLE / "dataset" / "train.jsonl"}


def read_questions() -> list[Question]:
    """examples/quickstart/questions.yaml."""
    return [Question(**entry) for entry in yaml.safe_load((EXAMPLE / "questions.yaml").read_text())]


def manifest(name: str) -> str:
    """One file of the example."""
    return (EXAMPLE / name).read_text()


def install(kubectl: Kubectl, images: Mapping[str, str], values: Mapping[str, str] | None = None) -> None:
    """Install or upgrade the chart with the real helm, and wait as helm does; `values` are further ones, by path."""
    given = {f"images.{part}": reference for part, reference in sorted(images.items())} | dict(values or {})
    command = [
        *(str(binary("helm")), "upgrade", "--install", RELEASE, str(CHART)),
        *(f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={OPERATOR_NAMESPACE}", "--create-namespace"),
        *("--wait", "--timeout=180s", *(f"--set-string={path}={value}" for path, value in given.items())),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pods = kubectl.run("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "wide")
        raise DemoError(f"helm could not install the chart: {done.stderr.strip()}\n{pods}")


def upload(kubectl: Kubectl, image: str, sources: dict[str, Path]) -> None:
    """Copy files and directories into the claim (`path in the claim -> local path`) through a restricted pod."""
    kubectl.apply(manifest("01-storage.yaml"))
    kubectl.apply(upload_pod(image))
    try:
        kubectl.run("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/upload", "--timeout=120s")
    except KubectlError as error:
        events = kubectl.run("get", "events", "-n", NAMESPACE, "--field-selector=involvedObject.name=upload")
        raise DemoError(f"the pod that receives the files did not start: {error}\n{events}") from error
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, source in sources.items():
            tar.add(source, arcname=name, filter=_anonymous)
    kubectl.run("exec", "-i", "-n", NAMESPACE, "upload", "--", "tar", "-x", "-C", "/data", stdin=archive.getvalue())
    kubectl.run("delete", "pod", "upload", "-n", NAMESPACE, "--grace-period=1")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The files belong to whoever unpacks them; their modes stay."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def upload_pod(image: str) -> str:
    """upload.yaml with an image that the cluster surely has."""
    pod = yaml.safe_load(manifest("upload.yaml"))
    pod["spec"]["containers"][0]["image"] = image
    return yaml.safe_dump(pod)


def submit(kubectl: Kubectl) -> None:
    """Apply the job, the roles and the service: the service waits by itself for an approved version."""
    for name in ("rbac.yaml", "02-finetunejob.yaml", "04-inferenceservice.yaml"):
        kubectl.apply(manifest(name))


def follow_job(kubectl: Kubectl, name: str, seen: Callable[[Object], None], timeout: float = 1500) -> Object:
    """Call `seen` with each state of the job until it is complete; DemoError tells why it failed."""

    def ended(job: Object) -> bool:
        seen(job)
        return is_true(job, "Complete") or is_true(job, "Failed") or is_true(job, "Stalled")

    try:
        job = poll(lambda: kubectl.get("finetunejob", name, NAMESPACE), ended, timeout)
    except TimeoutError as error:
        raise DemoError(f"FineTuneJob {name} is not complete: {error}") from error
    if not is_true(job, "Complete"):
        raise DemoError(f"FineTuneJob {name} failed: {job['status'].get('message')}")
    return job


def verified_version(kubectl: Kubectl, name: str, timeout: float = 180) -> Object:
    """The ModelVersion, once its files were verified."""

    def settled(version: Object) -> bool:
        return is_true(version, "Ready") or is_true(version, "Stalled")

    version = poll(lambda: kubectl.get("modelversion", name, NAMESPACE), settled, timeout)
    if not is_true(version, "Ready"):
        raise DemoError(f"ModelVersion {name} is not usable: {version['status'].get('message')}")
    return version


def approval(digest: str, approved_by: str) -> str:
    """03-modelversion.yaml for this digest and this person."""
    return manifest("03-modelversion.yaml").replace("${DIGEST}", digest).replace(APPROVER, approved_by)


def approve(kubectl: Kubectl, version: Object) -> str:
    """Try as somebody who must not, then approve as somebody who may; returns the refusal."""
    digest = version["spec"]["artifact"]["digest"]
    try:
        kubectl.as_user(DEVELOPER).apply(approval(digest, DEVELOPER))
    except KubectlError as refusal:
        kubectl.as_user(APPROVER).apply(approval(digest, APPROVER))
        return str(refusal)
    raise DemoError(f"{DEVELOPER} has no right to approve, and yet the apiserver accepted the approval")


def ready_service(kubectl: Kubectl, name: str, timeout: float = 400) -> Object:
    """The InferenceService, once a completion came back from it; DemoError tells why none can."""

    def settled(service: Object) -> bool:
        return is_true(service, "Ready") or is_true(service, "Stalled")

    try:
        service = poll(lambda: kubectl.get("inferenceservice", name, NAMESPACE), settled, timeout)
    except TimeoutError as error:
        raise DemoError(f"InferenceService {name} is not ready: {error}") from error
    if not is_true(service, "Ready"):
        reason = (condition(service, "Ready") or {}).get("reason", "Unknown")
        raise DemoError(f"InferenceService {name} is not ready ({reason}): {service['status'].get('message')}")
    return service


def ask(kubectl: Kubectl, name: str, prompts: Sequence[str]) -> list[str]:
    """Answers of the served model, through its Service."""
    with kubectl.port_forward(f"service/{name}", NAMESPACE, 80) as url:
        return [complete(url, name, prompt) for prompt in prompts]


def complete(url: str, model: str, prompt: str, max_tokens: int = 64) -> str:
    """One greedy chat completion."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as response:
        text: str = json.load(response)["choices"][0]["message"]["content"]
    return text.strip()


def leftovers(kubectl: Kubectl) -> None:
    """Forget an earlier quickstart on the same cluster; a namespace of that name that is not ours is left alone."""
    found = kubectl.get("namespace", NAMESPACE, NAMESPACE)
    if found is None:
        return
    if found["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "tunewright-quickstart":
        raise DemoError(
            f"the cluster has a namespace {NAMESPACE} that the quickstart did not make: rename or remove it first"
        )
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=180s")


def uninstall(kubectl: Kubectl) -> None:
    """Remove the quickstart and Tunewright from a cluster that stays: objects first, then chart and CRDs."""
    leftovers(kubectl)
    command = [str(binary("helm")), "uninstall", RELEASE, "--ignore-not-found", "--wait"]
    subprocess.run(
        [*command, f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={OPERATOR_NAMESPACE}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    kubectl.run("delete", "crd", "-l", "app.kubernetes.io/part-of=tunewright", "--ignore-not-found")
    kubectl.run("delete", "namespace", OPERATOR_NAMESPACE, "--ignore-not-found")
