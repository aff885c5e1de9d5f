"""A FineTuneJob's world in memory: an apiserver, and batch Jobs whose pods a test plays."""

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.serving import NAMESPACE, FakeKube, claim, custom
from tunewright_api.names import ExitCode, Stage
from tunewright_api.results import (
    EvaluateResult,
    ExportResult,
    MetricPair,
    Outcome,
    PrepareResult,
    StageResult,
    TrainResult,
)
from tunewright_operator.config import OperatorConfig
from tunewright_operator.reconcile.finetunejob import reconcile
from tunewright_operator.reconcile.result import Children, Result

Object = dict[str, Any]

CONFIG = OperatorConfig("registry.example/trainer:1", "registry.example/server:1")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIME = "2026-01-02T03:04:05Z"
DIGEST = "sha256:" + "d" * 64
RESULTS = {
    Stage.PREPARE: StageResult(
        outcome=Outcome.SUCCEEDED,
        prepare=PrepareResult(records=300, train=270, validation=30, truncated=2, digest=DIGEST),
    ),
    Stage.TRAIN: StageResult(
        outcome=Outcome.SUCCEEDED, train=TrainResult(steps=50, loss=1.25, seconds=60, checkpoint_step=50)
    ),
    Stage.EVALUATE: StageResult(
        outcome=Outcome.SUCCEEDED,
        evaluate=EvaluateResult(
            records=30, metrics=[MetricPair.model_validate({"metric": "Loss", "base": 4.5, "tuned": 1.25})]
        ),
    ),
    Stage.EXPORT: StageResult(
        outcome=Outcome.SUCCEEDED, export=ExportResult(digest=DIGEST, size_bytes=1024, kind="Full")
    ),
}


def spec(**changes: Any) -> Object:
    """Spec of a job of two pods; `changes` override its fields."""
    return {
        "baseModel": {"uri": "pvc://data/base-model"},
        "dataset": {"uri": "pvc://data/train.jsonl", "format": "Alpaca"},
        "method": {"lora": {}},
        "distributed": {"deepspeed": {"zeroStage": 1}},
        "numNodes": 2,
        "resourcesPerNode": {"cpu": "2", "memory": "4Gi"},
        "output": {"uri": "pvc://data/models", "modelName": "guide", "version": "v1"},
    } | changes


def job(status: Object | None = None, **changes: Any) -> Object:
    """A FineTuneJob called guide."""
    return custom("FineTuneJob", "guide", spec(**changes), status)


def failed_result(code: ExitCode, message: str) -> str:
    """Termination message of a stage that failed."""
    return StageResult(outcome=Outcome.FAILED, reason=code.reason, message=message).to_message()


@dataclass
class Cluster(FakeKube):
    """FakeKube with all kinds of a FineTuneJob."""

    def __post_init__(self) -> None:
        """The claim that `spec` names is there, and shared."""
        self.put(claim("data") | {"spec": {"accessModes": ["ReadWriteMany"]}})

    async def create(self, manifest: Object) -> Object:
        """As FakeKube, with a time of creation."""
        stored = await super().create(manifest)
        stored["metadata"]["creationTimestamp"] = TIME
        return stored

    async def patch(self, manifest: Object, body: Object) -> Object:
        """Merge into the spec."""
        key = (manifest["kind"], manifest["metadata"]["name"])
        self.objects[key]["spec"] |= body["spec"]
        self.writes.append(("patch", *key))
        return self.objects[key]

    def children(self, owner: Object) -> Children:
        """All children by owner labels; pods of Jobs that are gone are gone too, or are on their way out."""
        jobs = self._owned("Job", owner)
        uids = {one["metadata"]["uid"] for one in jobs}
        return Children(
            jobs=jobs,
            pods=tuple(p for p in self._owned("Pod", owner) if p["metadata"]["ownerReferences"][0]["uid"] in uids),
            orphans=tuple(
                pod
                for pod in self._owned("Pod", owner)
                if pod["metadata"]["ownerReferences"][0]["uid"] not in uids and "deletionTimestamp" in pod["metadata"]
            ),
            services=self._owned("Service", owner),
            config_maps=self._owned("ConfigMap", owner),
            network_policies=self._owned("NetworkPolicy", owner),
        )

    def job(self, stage: Stage, attempt: int = 1) -> Object | None:
        """The stored Job of a stage."""
        suffix = f"{stage.value}-{attempt}" if stage is Stage.TRAIN else stage.value
        return self.objects.get(("Job", f"guide-{suffix}"))

    def play_pods(
        self,
        stage: Stage,
        *,
        attempt: int = 1,
        index: int | None = None,
        phase: str = "Running",
        state: Object | None = None,
        **status: Any,
    ) -> None:
        """Give the pods of a stage (or the one with this index) a phase and a container state."""
        owner = self.job(stage, attempt)
        assert owner is not None, f"no Job for {stage}"
        indexes = range(owner["spec"].get("completions", 1)) if index is None else [index]
        for number in indexes:
            self.put(_pod(owner, number, phase, state, status))

    def succeed(self, stage: Stage, *, attempt: int = 1) -> None:
        """All pods and the Job of a stage end well."""
        message = RESULTS[stage].to_message()
        ended = {"terminated": {"exitCode": 0, "message": message, "finishedAt": TIME}}
        self.play_pods(stage, attempt=attempt, phase="Succeeded", state=ended)
        self.end_job(stage, "Complete", attempt=attempt)

    def fail_pod(
        self, stage: Stage, code: int, message: str = "", *, attempt: int = 1, index: int = 0, reason: str = "Error"
    ) -> None:
        """One pod ends badly."""
        ended = {"terminated": {"exitCode": code, "message": message, "finishedAt": TIME, "reason": reason}}
        self.play_pods(stage, attempt=attempt, index=index, phase="Failed", state=ended)

    def end_job(self, stage: Stage, kind: str, *, attempt: int = 1) -> None:
        """The Job controller's verdict."""
        owner = self.job(stage, attempt)
        assert owner is not None
        condition = {"type": kind, "status": "True", "lastTransitionTime": TIME, "message": f"Job is {kind}"}
        owner["status"] = {"conditions": [condition]}

    def drop_pods(self, stage: Stage, attempt: int = 1) -> None:
        """The pods of a stage are gone."""
        owner = self.job(stage, attempt)
        assert owner is not None
        for pod in self.of("Pod"):
            if pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]:
                del self.objects["Pod", pod["metadata"]["name"]]


async def turn(cluster: Cluster, obj: Object, now: datetime = NOW) -> Result:
    """One reconcile; its status is stored in `obj`, as the loop does."""
    result = await reconcile(cluster, CONFIG, copy.deepcopy(obj), cluster.children(obj), now)
    obj["status"] = copy.deepcopy(result.status)
    return result


async def settle(cluster: Cluster, obj: Object, now: datetime = NOW) -> Result:
    """Reconcile until nothing changes any more: children, status."""
    for _ in range(10):
        before = len(cluster.writes), copy.deepcopy(obj["status"])
        result = await turn(cluster, obj, now)
        if before == (len(cluster.writes), obj["status"]):
            return result
    raise AssertionError(f"does not settle: {cluster.writes}")


async def advance(cluster: Cluster, obj: Object, stage: Stage) -> None:
    """Until this stage's Job exists and everything before it is done."""
    await settle(cluster, obj)
    for before in (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT):
        if before is stage:
            return
        cluster.succeed(before)
        await settle(cluster, obj)


def _pod(owner: Object, index: int, phase: str, state: Object | None, status: Object) -> Object:
    labels = owner["metadata"]["labels"] | {"batch.kubernetes.io/job-completion-index": str(index)}
    name = f"{owner['metadata']['name']}-{index}"
    running = {"running": {"startedAt": TIME}} if phase == "Running" else {"waiting": {"reason": "ContainerCreating"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": labels,
            "uid": f"uid-{name}",
            "ownerReferences": [{"kind": "Job", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}],
            **status.pop("metadata", {}),
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "trainer", "image": "trainer", "state": state or running}],
            **status,
        },
    }
