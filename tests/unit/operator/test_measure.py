"""One check of a rollout: what is asked of whom, and what becomes of an answer that does not come."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from tests.serving import CONFIG, NAMESPACE, NOW, FakeKube
from tests.serving import service as build_service
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import LABEL_REVISION
from tunewright_api.rollout_status import Analysis, Verdict
from tunewright_operator.clients.models import ModelError
from tunewright_operator.clients.prometheus import PrometheusError
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.policies.rollout import Window
from tunewright_operator.reconcile import measure as module
from tunewright_operator.reconcile.measure import measure
from tunewright_operator.reconcile.result import Children

Object = dict[str, Any]

MEASURED = replace(CONFIG, prometheus_url="http://prometheus.test")
WINDOW = Window("bbbbbbbb", "aaaaaaaa", 10, 60, "guide-v2", "guide-v1")
CANDIDATE = RevisionState("bbbbbbbb", "guide-v2", replicas=1, ready=1, settled=True, stuck=False)
ERRORS = [{"name": "ErrorRate", "thresholdRange": {"max": 1}}]
EXACT = {"name": "capital", "prompt": "Capital of France?", "exact": "Paris"}
RUBRIC = {"name": "polite", "prompt": "Hello", "rubric": "it greets"}


def pod(*containers: str) -> Object:
    """A ready pod of the candidate."""
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": "guide-b", "labels": {LABEL_REVISION: "bbbbbbbb"}},
        "spec": {"containers": [{"name": name} for name in containers or ("server",)]},
        "status": {"podIP": "10.0.0.7", "conditions": ready},
    }


class World:
    """What Prometheus, the candidate and a judge answer, and what they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.errors: float | Exception = 0.0
        self.answer: str | Exception = "Paris"
        self.kube = FakeKube()
        monkeypatch.setattr(module, "query_round", self._query_round)
        monkeypatch.setattr(module, "ask", self._ask)
        monkeypatch.setattr(module, "ask_judge", self._judge)

    async def _query_round(self, url: str, queries: dict[str, str], at: Any) -> Any:
        self.asked.append((url, sorted(queries)))
        if isinstance(self.errors, Exception):
            raise self.errors
        both = [({"revision": "aaaaaaaa"}, 900.0), ({"revision": "bbbbbbbb"}, 100.0)]
        return {"Requests": both, "ErrorRate": [({"revision": "bbbbbbbb"}, self.errors)]}

    async def _ask(self, url: str, model: str, prompt: str, **_: Any) -> str:
        self.asked.append((url, model, prompt))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def _judge(self, url: str, model: str, *_: Any, token: str | None, **__: Any) -> bool:
        self.asked.append((url, model, token))
        return True

    async def check(self, *, config: Any = MEASURED, pods: tuple[Object, ...] = (), **rollout: Any) -> Analysis:
        """One check of a Canary."""
        obj = build_service(rollout={"strategy": "Canary", "metrics": ERRORS} | rollout)
        spec = InferenceServiceSpec.model_validate(obj["spec"])
        children = Children(pods=pods or (pod(),))
        return await measure(
            self.kube, config, obj, spec, children=children, window=WINDOW, candidate=CANDIDATE, now=NOW
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_prometheus_is_asked_for_what_the_spec_measures_and_the_candidate_for_its_probes(world: World) -> None:
    found = await world.check(probes={"prompts": [EXACT]})
    assert found.verdict is Verdict.PASS
    assert (found.requests, found.stable_requests) == (100, 900)
    assert world.asked == [
        ("http://prometheus.test", ["ErrorRate", "Requests"]),
        ("http://10.0.0.7:8000/v1", "guide", "Capital of France?"),
    ]


async def test_a_prometheus_that_is_away_is_inconclusive(world: World) -> None:
    world.errors = PrometheusError("Prometheus at http://prometheus.test does not answer")
    found = await world.check()
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "PrometheusUnavailable")


async def test_in_the_mesh_the_candidate_is_asked_by_the_name_of_its_service(world: World) -> None:
    await world.check(config=replace(MEASURED, in_mesh=True), probes={"prompts": [EXACT]})
    assert world.asked[-1][0] == f"http://guide-bbbbbbbb.{NAMESPACE}.svc.cluster.local:80/v1"


async def test_a_sidecar_that_would_refuse_the_operator_is_told(world: World) -> None:
    found = await world.check(pods=(pod("server", "istio-proxy"),), probes={"prompts": [EXACT]})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "set operator.inMesh of the chart" in found.message


async def test_a_judge_gets_a_token_only_from_a_secret_that_allows_it(world: World) -> None:
    judge = {"url": "http://judge.tools/v1", "model": "j", "secretRef": {"name": "key"}}
    probes = {"prompts": [RUBRIC], "judge": judge}
    found = await world.check(probes=probes)
    assert "there is no Secret key" in found.message

    data = {"API_KEY": base64.b64encode(b"sk-1\n").decode()}
    secret = {"kind": "Secret", "metadata": {"name": "key", "namespace": NAMESPACE}, "data": data}
    world.kube.put(secret)
    found = await world.check(probes=probes)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "lacks the label tunewright.io/judge=true" in found.message

    secret["metadata"]["labels"] = {"tunewright.io/judge": "true"}  # type: ignore[index]
    world.kube.put(secret)
    found = await world.check(probes=probes)
    assert found.verdict is Verdict.PASS
    assert world.asked[-1] == ("http://judge.tools/v1", "j", "sk-1")

    world.kube.put(secret | {"data": {"API_KEY": "//79"}})
    assert "has no usable key API_KEY" in (await world.check(probes=probes)).message


async def test_a_candidate_that_nobody_can_reach_is_inconclusive(world: World) -> None:
    world.answer = ModelError("http://10.0.0.7:8000/v1/chat/completions cannot be reached: ClientConnectorError")
    found = await world.check(probes={"prompts": [EXACT]})
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "NoAnswers")


async def test_nothing_more_is_asked_once_enough_answers_are_wrong(world: World) -> None:
    world.answer = "London"
    prompts = [EXACT | {"name": f"capital-{number}", "prompt": f"{number}"} for number in range(32)]
    found = await world.check(probes={"prompts": prompts, "minPassPercent": 90})
    assert (found.verdict, found.reason) == (Verdict.FAIL, "WrongAnswers")
    assert [prompt for _, _, prompt in world.asked[1:]] == ["0", "1", "2", "3"]


async def test_a_set_of_slow_probes_ends_with_the_interval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    async def slow(*_: Any, **__: Any) -> str:
        nonlocal clock
        clock += 20
        return "Paris"

    monkeypatch.setattr(module, "ask", slow)
    monkeypatch.setattr(module, "monotonic", lambda: clock)
    prompts = [EXACT | {"name": f"capital-{number}"} for number in range(32)]
    found = await world.check(probes={"prompts": prompts})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.message.endswith("probe capital-4: was not asked: those before it took all of the 60 s")
