"""Objects and an apiserver in memory for the tests of ModelVersion and InferenceService."""

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tunewright_api.names import LABEL_KIND, LABEL_NAME, LABEL_REVISION
from tunewright_api.results import Outcome, StageResult, VerifyResult
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from tunewright_operator.reconcile.result import Children, Result

Object = dict[str, Any]

NAMESPACE = "team"
DIGEST = "sha256:" + "a" * 64
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


CONFIG = OperatorConfig(trainer_image="tunewright/trainer:test", server_image="tunewright/server:test")


def version(
    name: str = "guide-v1", *, approval: Object | None = None, status: Object | None = None, **spec: Any
) -> Object:
    """A ModelVersion; `spec` overrides fields of its spec."""
    model, _, number = name.partition("-")
    merged: Object = {
        "modelName": model,
        "version": number,
        "kind": "Full",
        "artifact": {
            "uri": f"pvc://data/models/{name}",
            "digest": DIGEST,
            "format": "Safetensors",
            "sizeBytes": 10,
        },
        "baseModel": {"uri": "pvc://data/base"},
    } | spec
    if approval:
        merged["approval"] = approval
    return custom("ModelVersion", name, merged, status)


def decision(verdict: str = "Approved") -> Object:
    """A value of spec.approval."""
    return {"decision": verdict, "approvedBy": "olivia@example.com", "digest": DIGEST, "reason": "it answers well"}


def approved(name: str = "guide-v1", **spec: Any) -> Object:
    """A verified and approved ModelVersion."""
    return version(name, approval=decision(), status={"observedGeneration": 1, "verifiedDigest": DIGEST}, **spec)


def service(model: str = "guide-v1", *, status: Object | None = None, **spec: Any) -> Object:
    """An InferenceService of this ModelVersion."""
    merged = {"model": {"versionRef": {"name": model}}, "resources": {"cpu": "1500m", "memory": "6Gi"}} | spec
    return custom("InferenceService", "guide", merged, status)


def custom(kind: str, name: str, spec: Object, status: Object | None) -> Object:
    """An object of ours as the apiserver stores it."""
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": 1},
        "spec": spec,
        "status": status or {"observedGeneration": -1},
    }


def claim(name: str = "data") -> Object:
    """A PersistentVolumeClaim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> Object:
    """State of a container that ended."""
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "finishedAt": "2026-01-02T03:00:00Z",
        }
    }


def pod(name: str, labels: Object, *, restarts: int = 0, ready: bool = False, **states: Object) -> Object:
    """A pod whose one container has these states (`state`, `lastState`)."""
    container = {"name": "main", "image": "tunewright/server:test", "restartCount": restarts, "ready": ready}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "uid": f"uid-{name}"},
        "status": {"phase": "Running", "containerStatuses": [container | states]},
    }


@dataclass
class FakeKube:
    """An apiserver of dicts. `writes` lists every write but those of status, as (verb, kind, name)."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: dict[str, KubeError] = field(default_factory=dict)  # kind -> answer to an apply
    unknown: set[str] = field(default_factory=set)  # API versions that this apiserver does not serve
    statuses: list[Object] = field(default_factory=list)  # statuses that were written on the way

    def put(self, *manifests: Object) -> None:
        """Store objects as they are."""
        for manifest in manifests:
            self.objects[manifest["kind"], manifest["metadata"]["name"]] = copy.deepcopy(manifest)

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind, by name."""
        return [found for (stored, _), found in sorted(self.objects.items()) if stored == kind]

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        if (kind, name) not in self.objects or namespace != NAMESPACE:
            raise NotFound(f"{kind} {name} not found", 404)
        return copy.deepcopy(self.objects[kind, name])

    async def look(self, manifest: Object) -> Object | None:
        return copy.deepcopy(self.objects.get((manifest["kind"], manifest["metadata"]["name"])))

    async def list_by_labels(self, api_version: str, kind: str, namespace: str, labels: Object) -> list[Object]:
        if api_version in self.unknown:
            raise NotFound(f"the server could not find the requested resource {kind}", 404)
        return [
            copy.deepcopy(found)
            for found in self.of(kind)
            if labels.items() <= (found["metadata"].get("labels") or {}).items()
        ]

    async def create(self, manifest: Object) -> Object:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in self.refuse:
            raise self.refuse[kind]
        if (kind, name) in self.objects:
            raise AlreadyExists(f"{kind} {name} already exists", 409)
        stored = copy.deepcopy(manifest)
        stored["metadata"] |= {"uid": f"uid-{kind}-{name}", "generation": 1}
        return self._store("create", stored)

    async def apply(self, manifest: Object) -> Object:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in self.refuse:
            raise self.refuse[kind]
        old = self.objects.get((kind, name))
        if old is None or old["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise Conflict(f"{kind} {name}: uid mismatch", 409)
        stored = copy.deepcopy(manifest)
        stored["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if "creationTimestamp" in old["metadata"]:
            stored["metadata"]["creationTimestamp"] = old["metadata"]["creationTimestamp"]
        if "status" in old:
            stored["status"] = old["status"]
        return self._store("apply", stored)

    def _store(self, verb: str, stored: Object) -> Object:
        key = stored["kind"], stored["metadata"]["name"]
        self.objects[key] = stored
        self.writes.append((verb, *key))
        return stored

    async def patch(self, manifest: Object, body: Object) -> Object:
        stored = self.objects[manifest["kind"], manifest["metadata"]["name"]]
        stored["spec"] |= body["spec"]
        for annotation in (body.get("metadata") or {}).get("annotations") or ():
            stored["metadata"]["annotations"].pop(annotation, None)
        stored["metadata"]["generation"] += 1
        self.writes.append(("patch", manifest["kind"], manifest["metadata"]["name"]))
        return stored

    async def delete(self, manifest: Object) -> None:
        self.objects.pop((manifest["kind"], manifest["metadata"]["name"]), None)
        self.writes.append(("delete", manifest["kind"], manifest["metadata"]["name"]))

    async def patch_status(self, manifest: Object, status: Object) -> Object:
        self.statuses.append(copy.deepcopy(status))
        return {**manifest, "status": status}

    def children(self, owner: Object) -> Children:
        """Children by owner labels and uid, as the indexes give them."""
        return Children(
            jobs=self._owned("Job", owner),
            pods=self._owned("Pod", owner),
            services=self._owned("Service", owner),
            config_maps=self._owned("ConfigMap", owner),
            deployments=self._owned("Deployment", owner),
            disruption_budgets=self._owned("PodDisruptionBudget", owner),
            versions=tuple(copy.deepcopy(self.of("ModelVersion"))),
        )

    def _owned(self, kind: str, owner: Object) -> tuple[Object, ...]:
        wanted = (owner["kind"], owner["metadata"]["name"])
        return tuple(
            copy.deepcopy(found)
            for found in self.of(kind)
            if (labels := found["metadata"].get("labels") or {})
            and (labels.get(LABEL_KIND), labels.get(LABEL_NAME)) == wanted
            and (kind == "Pod" or found["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"])
        )


Reconcile = Callable[..., Awaitable[Result]]


async def turn(reconcile: Reconcile, kube: FakeKube, obj: Object, now: datetime = NOW) -> Result:
    """One reconcile; its status is stored in `obj`, as the loop does."""
    result = await reconcile(kube, CONFIG, copy.deepcopy(obj), kube.children(obj), now)
    obj["status"] = copy.deepcopy(result.status)
    return result


async def settle(reconcile: Reconcile, kube: FakeKube, obj: Object, now: datetime = NOW) -> Result:
    """Reconcile until neither children nor status change."""
    for _ in range(10):
        writes, status = len(kube.writes), copy.deepcopy(obj["status"])
        result = await turn(reconcile, kube, obj, now)
        if len(kube.writes) == writes and obj["status"] == status:
            return result
    raise AssertionError(f"does not settle: {kube.writes}")


def run_deployment(kube: FakeKube, revision: str, *, ready: int | None = None, **conditions: Object) -> None:
    """Play the deployment controller: `ready` pods answer (all if None); `conditions` by type."""
    for deployment in kube.of("Deployment"):
        if deployment["metadata"]["labels"][LABEL_REVISION] != revision:
            continue
        replicas = deployment["spec"]["replicas"]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas if ready is None else ready,
            "conditions": [{"type": kind, **value} for kind, value in conditions.items()],
        }


def revisions(kube: FakeKube) -> list[str]:
    """Hashes of the revisions that have a Deployment, in order of their names."""
    return [deployment["metadata"]["labels"][LABEL_REVISION] for deployment in kube.of("Deployment")]


def selected(kube: FakeKube) -> str | None:
    """The revision that the service's own Service selects."""
    service = kube.objects.get(("Service", "guide"))
    return service["spec"]["selector"].get(LABEL_REVISION) if service else None


def finish_job(kube: FakeKube, kind: str, message: str = "", *, digest: str | None = DIGEST) -> None:
    """Play the job controller: every Job gets the condition `kind`, and with Complete a pod that found `digest`."""
    for job in kube.of("Job"):
        ended = {"type": kind, "status": "True", "message": message, "lastTransitionTime": "2026-01-02T03:04:00Z"}
        job["status"] = {"conditions": [ended]}
        if kind == "Complete" and digest:
            found = StageResult(outcome=Outcome.SUCCEEDED, verify=VerifyResult(digest=digest, size_bytes=10))
            state = terminated(0, found.to_message(), "Completed")
            kube.put(pod(f"{job['metadata']['name']}-x", job["metadata"]["labels"], state=state))


def conditions(obj: Object) -> dict[str, tuple[str, str]]:
    """type -> (status, reason)."""
    return {c["type"]: (c["status"], c["reason"]) for c in obj["status"].get("conditions") or ()}


def check_golden(path: Path, objects: list[Object]) -> None:
    """Compare what was applied with the file; write the file when it does not exist."""
    applied = copy.deepcopy(objects)
    for one in applied:
        for given in ("uid", "generation"):
            del one["metadata"][given]
    text = yaml.safe_dump_all(applied, sort_keys=False)
    if not path.exists():
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: remove it and run again if the change is meant"
