"""The I/O of one check of a rollout: a round of Prometheus, and the probes."""

import asyncio
import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from tunewright_api.base import seconds
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import LABEL_JUDGE, METRIC_LABEL_REVISION, PORT_SERVER
from tunewright_api.rollout import Judge, Probe, Probes, RolloutMetric
from tunewright_api.rollout_status import Analysis, Verdict
from tunewright_operator.clients.models import ModelError, ask, bracketed
from tunewright_operator.clients.models import judge as ask_judge
from tunewright_operator.clients.prometheus import PrometheusError, Vector, query_round
from tunewright_operator.config import OperatorConfig
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.manifests.naming import revision_name, service_host
from tunewright_operator.manifests.server import SERVICE_PORT
from tunewright_operator.observe.revisions import RevisionState, ready_pod
from tunewright_operator.policies.analysis import Answer, Samples, checks_of, judge
from tunewright_operator.policies.answers import judge_probes
from tunewright_operator.policies.promql import REQUESTS, build_queries
from tunewright_operator.policies.rollout import Window
from tunewright_operator.reconcile.lookup import find
from tunewright_operator.reconcile.result import Children

JUDGE_KEY = "API_KEY"
_AT_ONCE = 4
_SIDECAR = "istio-proxy"


async def measure(
    kube: Kube,
    config: OperatorConfig,
    obj: Manifest,
    spec: InferenceServiceSpec,
    *,
    children: Children,
    window: Window,
    candidate: RevisionState,
    now: datetime,
) -> Analysis:
    """Look at the window and ask the probes; a breach of a metric is not held up by slow probes."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    address = _candidate_address(config, obj, children, window.revision)
    probing = asyncio.create_task(
        _answers(kube, namespace, name, address, spec.rollout.probes, limit=float(window.seconds))
    )
    try:
        samples = await _sample(config.prometheus_url, obj, spec, window, now)
        early = judge(window, spec.rollout, samples, None, candidate, now)
        if early.verdict is Verdict.FAIL:
            return early
        return judge(window, spec.rollout, samples, await probing, candidate, now)
    finally:
        probing.cancel()


async def _sample(url: str, obj: Manifest, spec: InferenceServiceSpec, window: Window, now: datetime) -> Samples:
    checks = {check.name.value for check in checks_of(spec.rollout)}
    if not checks:
        return Samples({}, {})
    queries = build_queries(obj["metadata"]["namespace"], obj["metadata"]["name"], window.seconds)
    wanted = {key: query for key, query in queries.items() if key in checks | {REQUESTS}}
    try:
        vectors = await query_round(url, wanted, now)
    except PrometheusError as error:
        return Samples({}, {}, str(error))
    requests = _by_revision(vectors.pop(REQUESTS))
    values = {
        (RolloutMetric(metric), revision): value
        for metric, vector in vectors.items()
        for revision, value in _by_revision(vector).items()
    }
    return Samples(values, requests)


def _by_revision(vector: Vector) -> Mapping[str, float]:
    """Values by revision; a quantile of nothing is NaN, which is no value."""
    return {
        labels[METRIC_LABEL_REVISION]: value
        for labels, value in vector
        if METRIC_LABEL_REVISION in labels and not math.isnan(value)
    }


async def _answers(
    kube: Kube, namespace: str, name: str, address: "_Address", probes: Probes | None, *, limit: float
) -> list[Answer] | None:
    """Asks no more once so many answers are wrong that the others cannot change the verdict, and nothing later than
    `limit` seconds after the first question."""
    if probes is None:
        return None
    if address.url is None:
        return [Answer(probe, None, address.problem) for probe in probes.prompts]
    token, problem = await _judge_token(kube, namespace, probes.judge)
    # A burst of questions would slow down what is being measured.
    turnstile = asyncio.Semaphore(_AT_ONCE)
    end = monotonic() + limit
    answers: list[Answer] = []

    async def one(url: str, probe: Probe) -> None:
        async with turnstile:
            if judge_probes(probes, answers).verdict is Verdict.FAIL:
                return
            if monotonic() > end:
                late = f"was not asked: those before it took all of the {limit:.0f} s"
                answers.append(Answer(probe, None, late))
            else:
                answers.append(await _answer(url, name, probe, probes, token=token, problem=problem))

    await asyncio.gather(*(one(address.url, probe) for probe in probes.prompts))
    return sorted(answers, key=lambda answer: probes.prompts.index(answer.probe))


async def _answer(
    base_url: str, model: str, probe: Probe, probes: Probes, *, token: str | None, problem: str | None
) -> Answer:
    timeout = float(seconds(probes.timeout))
    try:
        text = await ask(base_url, model, probe.prompt, max_tokens=probes.max_tokens, timeout=timeout)
    except ModelError as error:
        return Answer(probe, None, str(error), refused=error.refused)
    if probe.rubric is None or probes.judge is None:
        return Answer(probe, text)
    if problem:
        return Answer(probe, text, problem)
    try:
        verdict = await ask_judge(
            probes.judge.url, probes.judge.model, probe.prompt, text, probe.rubric, token=token, timeout=timeout
        )
    except ModelError as error:
        # The judge's fault says nothing about the candidate.
        return Answer(probe, text, f"the judge: {error}")
    return Answer(probe, text, judged=verdict)


async def _judge_token(kube: Kube, namespace: str, judge: Judge | None) -> tuple[str | None, str | None]:
    """(token, why there is none although the spec names a Secret).

    Only a Secret whose owner labelled it for this use is read: who may write an InferenceService chooses where the
    token goes, and need not be allowed to read Secrets.
    """
    if judge is None or judge.secret_ref is None:
        return None, None
    name = judge.secret_ref.name
    secret = await find(kube, "v1", "Secret", namespace, name)
    if secret is None:
        return None, f"there is no Secret {name}"
    if (secret["metadata"].get("labels") or {}).get(LABEL_JUDGE) != "true":
        return None, f"Secret {name} lacks the label {LABEL_JUDGE}=true, by which its owner lets a judge have it"
    encoded = (secret.get("data") or {}).get(JUDGE_KEY)
    try:
        token = base64.b64decode(encoded or "").decode("ascii").strip()
    except ValueError:
        token = ""
    if not token.isprintable() or not token:
        return None, f"Secret {name} has no usable key {JUDGE_KEY}"
    return token, None


@dataclass(frozen=True)
class _Address:
    """Where the candidate alone answers, or why nobody can ask it."""

    url: str | None
    problem: str = ""


def _candidate_address(config: OperatorConfig, obj: Manifest, children: Children, revision: str) -> _Address:
    """One of its pods, or its Service when a sidecar has to encrypt."""
    pod = ready_pod(children.pods, revision)
    if pod is None:
        return _Address(None, "the candidate has no ready pod to ask")
    if config.in_mesh:
        host = service_host(obj["metadata"]["namespace"], revision_name(obj["metadata"]["name"], revision))
        return _Address(f"http://{host}:{SERVICE_PORT}/v1")
    containers = (*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ()))
    if any(container["name"] == _SIDECAR for container in containers):
        return _Address(None, "its pods have a sidecar: set operator.inMesh of the chart, so that probes reach them")
    return _Address(f"http://{bracketed(pod['status']['podIP'])}:{PORT_SERVER}/v1")
