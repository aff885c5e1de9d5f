"""The I/O of one check of a rollout: a round of Prometheus, and the probes."""

import asyncio
import base64
import math
from collections.abc import Mapping
from datetime import datetime

from tunewright_api.base import seconds
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import METRIC_LABEL_REVISION, PORT_SERVER
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
from tunewright_operator.policies.promql import REQUESTS, build_queries
from tunewright_operator.policies.rollout import Window
from tunewright_operator.reconcile.lookup import find
from tunewright_operator.reconcile.result import Children

JUDGE_KEY = "API_KEY"


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
    base_url = _candidate_url(config, obj, children, window.revision)
    probing = asyncio.create_task(_answers(kube, namespace, name, base_url, spec.rollout.probes))
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
    kube: Kube, namespace: str, name: str, base_url: str | None, probes: Probes | None
) -> list[Answer] | None:
    if probes is None:
        return None
    if base_url is None:
        return [Answer(probe, None, "the candidate has no ready pod to ask", None) for probe in probes.prompts]
    token = await _judge_token(kube, namespace, probes.judge)
    return list(await asyncio.gather(*(_answer(base_url, name, probe, probes, token) for probe in probes.prompts)))


async def _answer(base_url: str, model: str, probe: Probe, probes: Probes, token: str | None) -> Answer:
    timeout = float(seconds(probes.timeout))
    try:
        text = await ask(base_url, model, probe.prompt, max_tokens=probes.max_tokens, timeout=timeout)
    except ModelError as error:
        return Answer(probe, None, str(error), None)
    if probe.rubric is None or probes.judge is None:
        return Answer(probe, text, None, None)
    try:
        verdict = await ask_judge(
            probes.judge.url, probes.judge.model, probe.prompt, text, probe.rubric, token=token, timeout=timeout
        )
    except ModelError as error:
        # The judge's fault says nothing about the candidate.
        return Answer(probe, text, f"the judge: {error}", None)
    return Answer(probe, text, None, verdict)


async def _judge_token(kube: Kube, namespace: str, judge: Judge | None) -> str | None:
    if judge is None or judge.secret_ref is None:
        return None
    secret = await find(kube, "v1", "Secret", namespace, judge.secret_ref.name)
    encoded = ((secret or {}).get("data") or {}).get(JUDGE_KEY)
    return base64.b64decode(encoded).decode() if encoded else None


def _candidate_url(config: OperatorConfig, obj: Manifest, children: Children, revision: str) -> str | None:
    """Where the candidate alone answers: one of its pods, or its Service when a sidecar has to encrypt."""
    pod = ready_pod(children.pods, revision)
    if pod is None:
        return None
    if config.in_mesh:
        host = service_host(obj["metadata"]["namespace"], revision_name(obj["metadata"]["name"], revision))
        return f"http://{host}:{SERVICE_PORT}/v1"
    return f"http://{bracketed(pod['status']['podIP'])}:{PORT_SERVER}/v1"
