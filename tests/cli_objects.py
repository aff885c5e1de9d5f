"""Objects as an apiserver gives them, for the tests of the command line: made with the models, so they stay valid.

The story: job `guide` made version guide-v1, which the service `guide` serves; guide-2 made guide-v2, its candidate.
"""

from typing import Any

from tunewright_api.base import LocalObjectRef
from tunewright_api.conditions import Condition, ConditionStatus
from tunewright_api.dataset import Dataset, DatasetFormat
from tunewright_api.distributed import DeepSpeed, Distributed
from tunewright_api.evaluation import MetricName, MetricResult
from tunewright_api.finetunejob import BaseModelSource, FineTuneJobSpec, Output
from tunewright_api.finetunejob_status import CheckpointStatus, DatasetStatus, FineTuneJobStatus, JobProgress, JobStage
from tunewright_api.inferenceservice import InferenceServiceSpec, InferenceServiceStatus, ServedModel, VersionRef
from tunewright_api.method import LoraMethod, Method
from tunewright_api.modelversion import (
    Approval,
    Artifact,
    ArtifactFormat,
    BaseModelRef,
    Decision,
    JobRef,
    Lineage,
    ModelKind,
    ModelVersionSpec,
    ModelVersionStatus,
)
from tunewright_api.names import API_VERSION, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, LABEL_REVISION, LABEL_STAGE
from tunewright_api.rollout import Rollout, RolloutMetric, Strategy, ThresholdRange
from tunewright_api.rollout_status import (
    Analysis,
    CandidateStatus,
    DecisionType,
    MetricAnalysis,
    Performance,
    Phase,
    ProbeAnalysis,
    RejectedRevision,
    RevisionStatus,
    RolloutDecision,
    TrafficStatus,
    Verdict,
)
from tunewright_api.traffic import Traffic, TrafficProvider

Object = dict[str, Any]

NAMESPACE = "team"
CREATED = "2026-11-22T14:46:04Z"
NOW = "2026-11-22T15:00:00Z"
DIGESTS = {version: f"sha256:{digit * 64}" for version, digit in (("v1", "1"), ("v2", "2"), ("v3", "3"))}
URL = "http://guide.team.svc.cluster.local/v1"


def _object(kind: str, name: str, namespace: str, spec: Object, status: Object) -> Object:
    meta = {"name": name, "namespace": namespace, "generation": 1, "creationTimestamp": CREATED, "uid": f"uid-{name}"}
    body: Object = {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "spec": spec}
    return body | ({"status": status} if status else {})


def conditions(**states: str) -> list[Condition]:
    """`Ready="True:Serving:it answers"` -> conditions."""
    made = []
    for kind, text in states.items():
        status, reason, message = [*text.split(":", 2), "", ""][:3]
        made.append(
            Condition(
                type=kind,
                status=ConditionStatus(status),
                reason=reason or kind,
                message=message,
                observed_generation=1,
                last_transition_time=CREATED,
            )
        )
    return made


# --- FineTuneJob ------------------------------------------------------------------------------


def evaluation() -> list[MetricResult]:
    """Base against tuned model."""
    return [
        MetricResult(metric=MetricName.LOSS, base=3.570796, tuned=0.055464, gate="<= 0.5", passed=True),
        MetricResult(metric=MetricName.EXACT_MATCH, base=0, tuned=0.903226, gate=">= 0.6", passed=True),
    ]


def job(
    name: str = "guide", version: str = "v1", status: FineTuneJobStatus | None = None, namespace: str = NAMESPACE
) -> Object:
    """A FineTuneJob that makes guide-VERSION; complete unless a status says otherwise."""
    spec = FineTuneJobSpec(
        base_model=BaseModelSource(uri="pvc://data/base-model"),
        dataset=Dataset(uri=f"pvc://data/train-{version}.jsonl", format=DatasetFormat.ALPACA),
        method=Method(lora=LoraMethod()),
        distributed=Distributed(deepspeed=DeepSpeed(zero_stage=1)),
        num_nodes=2,
        output=Output(uri="pvc://data/models", model_name="guide", version=version),
    )
    made = complete_job(version) if status is None else status
    return _object("FineTuneJob", name, namespace, spec.to_dict(), made.to_dict())


def complete_job(version: str = "v1") -> FineTuneJobStatus:
    """A job that has registered its version."""
    return FineTuneJobStatus(
        observed_generation=1,
        conditions=conditions(Accepted="True", Trained="True:Succeeded", Complete="True:Registered"),
        stage=JobStage.COMPLETE,
        message=f"registered as ModelVersion guide-{version}; approval is decided there",
        start_time=CREATED,
        completion_time="2026-11-22T14:49:07Z",
        dataset=DatasetStatus(records=310, train=279, validation=31, truncated=0, digest=DIGESTS["v1"]),
        progress=progress(90),
        last_checkpoint=CheckpointStatus(step=60),
        evaluation=evaluation(),
        model_version_ref=LocalObjectRef(name=f"guide-{version}"),
    )


def progress(step: int) -> JobProgress:
    """At a step of 90."""
    return JobProgress(
        percent=step * 100 // 90,
        step=step,
        total_steps=90,
        epoch=1.25,
        eta_seconds=90 - step,
        tokens_per_second=184,
        loss=0.0184,
        learning_rate=1e-5,
        summary=f"{step}/90 · loss 0.018 · 184 tok/s" + (f" · {90 - step}s left" if step < 90 else ""),
    )


def training_job() -> FineTuneJobStatus:
    """A job at step 39 of 90."""
    return FineTuneJobStatus(
        observed_generation=1,
        conditions=conditions(Accepted="True", DatasetReady="True:Succeeded"),
        stage=JobStage.TRAINING,
        message=progress(39).summary,
        start_time=CREATED,
        dataset=DatasetStatus(records=310, train=279, validation=31, truncated=4, digest=DIGESTS["v1"]),
        progress=progress(39),
        last_checkpoint=CheckpointStatus(step=30),
    )


# --- ModelVersion -----------------------------------------------------------------------------


def version(
    version: str = "v1",
    *,
    made_by: str | None = "guide",
    approval: Approval | None = None,
    decided: bool = True,
    status: ModelVersionStatus | None = None,
    aliases: list[str] | None = None,
    namespace: str = NAMESPACE,
    model: str = "guide",
) -> Object:
    """guide-VERSION, verified; approved by olivia unless `decided` is False."""
    digest = DIGESTS.get(version, DIGESTS["v1"])
    approval = approval or (approved(digest) if decided else None)
    spec = ModelVersionSpec(
        model_name=model,
        version=version,
        kind=ModelKind.FULL,
        artifact=Artifact(
            uri=f"pvc://data/models/guide/{version}",
            digest=digest,
            format=ArtifactFormat.SAFETENSORS,
            size_bytes=311720520,
        ),
        base_model=BaseModelRef(uri="pvc://data/base-model"),
        lineage=Lineage(job_ref=JobRef(name=made_by, uid=f"uid-{made_by}")) if made_by else None,
        evaluation=evaluation(),
        aliases=aliases,
        approval=approval,
    )
    made = status or verified_version(digest, approval)
    return _object("ModelVersion", f"{model}-{version}", namespace, spec.to_dict(), made.to_dict())


def approved(digest: str, decision: Decision = Decision.APPROVED, reason: str | None = None) -> Approval:
    """Olivia's decision."""
    return Approval(decision=decision, approved_by="olivia@example.com", digest=digest, reason=reason)


def verified_version(digest: str, approval: Approval | None) -> ModelVersionStatus:
    """Every file has the recorded digest."""
    states = {"Verified": "True:DigestMatches", "Ready": "True:Verified", "Approved": "Unknown:AwaitingDecision"}
    if approval:
        states["Approved"] = (
            f"{'True' if approval.decision is Decision.APPROVED else 'False'}:{approval.decision.value}"
        )
    message = f"{approval.decision.value.lower()} by olivia@example.com" if approval else "waits for a decision"
    return ModelVersionStatus(
        observed_generation=1, conditions=conditions(**states), message=message, verified_digest=digest
    )


# --- InferenceService -------------------------------------------------------------------------

STABLE, CANDIDATE, BAD = "9b6e7a66", "c0ffee12", "deadbee5"


def service(
    name: str = "guide",
    version: str = "guide-v1",
    status: InferenceServiceStatus | None = None,
    spec: InferenceServiceSpec | None = None,
    namespace: str = NAMESPACE,
) -> Object:
    """An InferenceService; serving VERSION unless a status says otherwise."""
    spec = spec or InferenceServiceSpec(model=ServedModel(version_ref=VersionRef(name=version)), replicas=2)
    made = status or serving(version)
    return _object("InferenceService", name, namespace, spec.to_dict(), made.to_dict())


def canary(version: str = "guide-v2", **rollout: Any) -> InferenceServiceSpec:
    """A spec that goes to VERSION in steps, behind Istio."""
    return InferenceServiceSpec(
        model=ServedModel(version_ref=VersionRef(name=version)),
        replicas=2,
        traffic=Traffic(provider=TrafficProvider.ISTIO),
        rollout=Rollout(**{"strategy": Strategy.CANARY, "steps": [10, 20, 50], "threshold": 2} | rollout),
    )


def stable(weight: int = 100, ready: int = 2) -> RevisionStatus:
    """The revision that answers."""
    return RevisionStatus(version="guide-v1", revision=STABLE, weight=weight, ready_replicas=ready, replicas=2)


def serving(version: str = "guide-v1") -> InferenceServiceStatus:
    """It answers, and nothing is on its way."""
    message = f"{version} answers at {URL} as model guide"
    return InferenceServiceStatus(
        observed_generation=1,
        conditions=conditions(Accepted="True", Ready=f"True:Serving:{message}"),
        message=message,
        url=URL,
        stable=stable().model_copy(update={"version": version}),
        traffic=TrafficStatus(provider=TrafficProvider.ISTIO),
        performance=Performance(
            revision=STABLE, ttft_milliseconds=112.4, tpot_milliseconds=21.7, tokens_per_second=41.9
        ),
    )


def rolling(**changes: Any) -> InferenceServiceStatus:
    """guide-v2 has 20 percent; `changes` are fields of the candidate."""
    candidate = CandidateStatus(
        **{
            "version": "guide-v2",
            "revision": CANDIDATE,
            "weight": 20,
            "ready_replicas": 1,
            "replicas": 1,
            "phase": Phase.PROGRESSING,
            "step": 2,
            "started_at": "2026-11-22T14:57:00Z",
            "checked_at": "2026-11-22T14:59:48Z",
        }
        | changes
    )
    message = "guide-v2 gets 20 percent of the traffic"
    return serving().model_copy(
        update={
            "conditions": conditions(Accepted="True", Ready="True:Serving", Reconciling=f"True:RollingOut:{message}"),
            "message": message,
            "stable": stable(80),
            "candidate": candidate,
            "analysis": analysis(),
            "history": [
                decision(DecisionType.ADVANCED, "14:59:48", 20, "Pass", "every metric is within its limit"),
                decision(DecisionType.HELD, "14:58:48", 10, "TooFewRequests", "12 of 20 requests", count=3),
                decision(DecisionType.ADVANCED, "14:57:40", 10, "Ready", "every pod answers"),
                decision(DecisionType.STARTED, "14:57:00", 0, "SpecChanged", "guide-v2 replaces guide-v1"),
            ],
        }
    )


def analysis(verdict: Verdict = Verdict.PASS, **changes: Any) -> Analysis:
    """The check at 20 percent."""
    return Analysis(
        **{
            "time": "2026-11-22T14:59:48Z",
            "revision": CANDIDATE,
            "weight": 20,
            "window_seconds": 60,
            "requests": 103,
            "stable_requests": 412,
            "verdict": verdict,
            "reason": "Pass",
            "message": "every metric is within its limit",
            "metrics": [
                metric(RolloutMetric.ERROR_RATE, 0, 0, maximum=1),
                metric(RolloutMetric.COMPLETION_RATE, 99.8, 100, minimum=95),
                metric(RolloutMetric.TTFT_P95, 212, 230.4, maximum=265),
                metric(RolloutMetric.TPOT_P95, 31.25, 30.9, maximum=39.06),
            ],
            "probes": ProbeAnalysis(passed=3, total=3, verdict=Verdict.PASS),
        }
        | changes
    )


def metric(
    name: RolloutMetric,
    stable: float | None,
    candidate: float | None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    verdict: Verdict = Verdict.PASS,
) -> MetricAnalysis:
    """One line of the check."""
    limits = ThresholdRange(min=minimum, max=maximum)
    return MetricAnalysis(name=name, stable=stable, candidate=candidate, threshold_range=limits, verdict=verdict)


def decision(
    kind: DecisionType, time: str, weight: int, reason: str, message: str, *, count: int = 1, version: str = "guide-v2"
) -> RolloutDecision:
    """One line of the history."""
    return RolloutDecision(
        time=f"2026-11-22T{time}Z",
        decision=kind,
        revision=CANDIDATE,
        version=version,
        weight=weight,
        reason=reason,
        message=message,
        count=count,
    )


def rolled_back() -> InferenceServiceStatus:
    """guide-v2 was too slow: all traffic is back at guide-v1."""
    message = "TTFTP95 of guide-v2 was 812 ms, more than 265 ms"
    return serving().model_copy(
        update={
            "conditions": conditions(
                Accepted="True",
                Ready="True:Serving",
                Degraded=f"True:RolledBack:{message}",
                Stalled=f"True:RolledBack:{message}",
            ),
            "message": message,
            "stable": stable(),
            "analysis": analysis(
                Verdict.FAIL,
                reason="TTFTP95",
                message=message,
                metrics=[
                    metric(RolloutMetric.ERROR_RATE, 0, 0.97, maximum=1),
                    metric(RolloutMetric.TTFT_P95, 212, 812, maximum=265, verdict=Verdict.FAIL),
                    metric(RolloutMetric.TPOT_P95, 31.25, None, maximum=39.06, verdict=Verdict.INCONCLUSIVE),
                ],
                probes=ProbeAnalysis(
                    passed=2, total=3, verdict=Verdict.FAIL, message="capital: expected Paris, got London"
                ),
            ),
            "history": [
                decision(DecisionType.ROLLED_BACK, "14:59:50", 0, "TTFTP95", message),
                decision(DecisionType.ADVANCED, "14:58:48", 10, "Ready", "every pod answers"),
            ],
            "rejected": RejectedRevision(
                revision=CANDIDATE,
                version="guide-v2",
                reason="TTFTP95",
                message=message,
                time="2026-11-22T14:59:50Z",
            ),
        }
    )


# --- pods -------------------------------------------------------------------------------------


def pod(
    name: str,
    kind: str = "InferenceService",
    owner: str = "guide",
    *,
    revision: str = "",
    stage: str = "",
    ready: bool = True,
    status: Object | None = None,
) -> Object:
    """A pod of one of our objects; running unless a status says otherwise."""
    labels = {LABEL_MANAGED_BY: "tunewright", LABEL_KIND: kind, LABEL_NAME: owner}
    labels |= {LABEL_REVISION: revision} if revision else {}
    labels |= {LABEL_STAGE: stage} if stage else {}
    running: Object = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"name": "server", "ready": ready, "restartCount": 0, "state": {"running": {}}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "creationTimestamp": CREATED},
        "spec": {"nodeName": "node-1", "containers": [{"name": "server", "image": "server"}]},
        "status": running if status is None else status,
    }


def crashing(message: str = "exit code 66", restarts: int = 4) -> Object:
    """Status of a pod whose container ends again and again."""
    ended = {"exitCode": 66, "reason": "Error", "message": message, "finishedAt": "2026-11-22T14:59:00Z"}
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {
                "name": "server",
                "image": "server",
                "ready": False,
                "restartCount": restarts,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                "lastState": {"terminated": ended},
            }
        ],
    }
