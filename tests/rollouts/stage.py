"""The stage of one scenario: a service of its own, its versions, its load, and what the status says about it."""

from __future__ import annotations

import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.rollouts.arena import Arena
from tests.rollouts.behaviour import Behaviour
from tests.rollouts.kubelet import DIGEST, Pod, Scripts
from tests.rollouts.laws import Weights, check_decided_first, check_laws
from tests.rollouts.load import Answer, Load, ask
from tunewright_api.names import ANNOTATION_REQUEST, LABEL_NAME
from tunewright_api.server_config import ServerConfig
from tunewright_operator.policies.promql import build_queries

Object = dict[str, Any]
T = TypeVar("T")

ADMIN = "tunewright-admin"
GROUP = "/apis/tunewright.io/v1alpha1"
PATIENCE = 60.0  # seconds for anything that is not measured: the machine may be busy
# What Kubernetes and the operator may take together to notice that a service answers no more.
NOTICE_SECONDS = 5.0
INTERVAL = 3
STEPS = [20, 50]
# Far from what the servers do by default, and from what they do when they are slow.
LIMITS = [
    {"name": "ErrorRate", "thresholdRange": {"max": 1}},
    {"name": "TTFTP95", "thresholdRange": {"max": 250}},
    {"name": "TPOTP95", "thresholdRange": {"max": 60}},
    {"name": "CompletionRate", "thresholdRange": {"min": 95}},
]
CANARY: Object = {
    "strategy": "Canary",
    "interval": f"{INTERVAL}s",
    "steps": STEPS,
    "minRequests": 3,
    "metrics": LIMITS,
}


@dataclass
class Stage:
    """Everything that a scenario touches. `notes` are shown with its result."""

    arena: Arena
    namespace: str
    service: str
    notes: list[str] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    steps: list[int] = field(default_factory=lambda: list(STEPS))
    # (version, number of the pod) -> the name of its behaviour; by default that of the version.
    pick: Callable[[str, int], str] = lambda number, pod: number

    @property
    def host(self) -> str:
        """The name under which the gateway knows the service."""
        return f"{self.service}.{self.namespace}.example"

    @property
    def ours(self) -> str:
        return f"{GROUP}/namespaces/{self.namespace}"

    @property
    def routes(self) -> tuple[str, str]:
        """Names of the objects that can carry weights: Istio has one for the mesh and one for gateways."""
        return self.service, f"{self.service}-gateways"

    def open(self) -> None:
        """Say what the servers of this service do."""
        self.arena.kubelet.scripts[self.namespace, self.service] = Scripts(server=self._script)

    def _script(self, config: ServerConfig, pod: int) -> Behaviour:
        return self.behaviour(self.pick(config.identity.version.removeprefix(f"{self.service}-"), pod))

    def name(self, number: str) -> str:
        """Name of the ModelVersion with this number."""
        return f"{self.service}-{number}"

    def note(self, text: str) -> None:
        """Say something with the result."""
        self.notes.append(f"{time.strftime('%H:%M:%S')} {text}")

    # --- versions -------------------------------------------------------------------------------

    def behaviour(self, number: str) -> Behaviour:
        """What the servers of a version do; a change of it takes effect at once."""
        return self.behaviours.setdefault(number, Behaviour())

    def behave(self, number: str, **how: Any) -> Behaviour:
        """Set the behaviour of a version; the test may keep the result and change it."""
        self.behaviours[number] = Behaviour(**how)
        return self.behaviours[number]

    def register(self, number: str, **spec: Any) -> None:
        """Create a ModelVersion, wait until it is verified, and approve it."""
        self.create_version(number, **spec)
        self.approve(number)

    def approve(self, number: str) -> None:
        """Wait until a version is verified, and approve it."""
        self.wait(f"{number} verified", lambda: _condition(self.version(number), "Verified") == "True")
        self.decide(number, "Approved")

    def create_version(self, number: str, **spec: Any) -> None:
        """Create a ModelVersion."""
        whole = {
            "modelName": self.service,
            "version": number,
            "kind": "Full",
            "artifact": {
                "uri": f"pvc://data/{self.service}/{number}",
                "digest": DIGEST,
                "format": "Safetensors",
                "sizeBytes": 1,
            },
            "baseModel": {"uri": "pvc://data/base"},
        } | spec
        self.arena.plane.api.create(
            f"{self.ours}/modelversions", self._object("ModelVersion", self.name(number), whole)
        )

    def decide(self, number: str, decision: str | None) -> None:
        """Approve, reject, or (None) take the decision back."""
        approval = {"decision": decision, "approvedBy": ADMIN, "digest": DIGEST, "reason": "tested"}
        self.change_version(number, approval=approval if decision else None)

    def change_version(self, number: str, **spec: Any) -> None:
        """Merge into the spec of a ModelVersion."""
        self._patch(f"modelversions/{self.name(number)}", spec)

    def move_alias(self, alias: str, number: str, *, away_from: str) -> None:
        """Move an alias; as two people's commands would, in two writes."""
        self.change_version(away_from, aliases=None)
        self.change_version(number, aliases=[alias])

    def version(self, number: str) -> Object:
        """The ModelVersion as last seen; empty before."""
        return self.arena.mirror.get("modelversions", self.namespace, self.name(number)) or {}

    # --- the service ----------------------------------------------------------------------------

    def serve(self, number: str | None = None, *, provider: str = "Istio", **spec: Any) -> None:
        """Create the InferenceService; `spec` overrides its fields."""
        whole = {"traffic": self.traffic(provider), "rollout": CANARY} | spec
        if number:
            whole["model"] = {"versionRef": {"name": self.name(number)}}
        body = self._object("InferenceService", self.service, whole)
        self.arena.plane.api.create(f"{self.ours}/inferenceservices", body)

    def traffic(self, provider: str) -> Object:
        """spec.traffic that the gateway of the mesh follows."""
        if provider == "None":
            return {"provider": "None"}
        permissive = {"mtls": "Permissive"} if provider == "Istio" else {}
        return {"provider": provider, "gateways": ["istio-system/gateway"], "hosts": [self.host], **permissive}

    def change(self, **spec: Any) -> None:
        """Merge into the spec of the service."""
        generation = self._patch(f"inferenceservices/{self.service}", spec)["metadata"]["generation"]
        self.wait("the change seen", lambda: self.object()["metadata"]["generation"] >= generation)

    def move(self, number: str) -> None:
        """Ask for another version."""
        self.change(model={"versionRef": {"name": self.name(number)}})

    def request(self, verb: str, revision: str | None = None) -> Object:
        """Annotate a person's request about the candidate (or a named revision); returns what became of it."""
        revision = revision or self.candidate()["revision"]
        value = f"{verb}@{revision}/{time.monotonic_ns()}"
        body = {"metadata": {"annotations": {ANNOTATION_REQUEST: value}}}
        self.arena.plane.api.merge(f"{self.ours}/inferenceservices/{self.service}", body)

        def handled() -> Object:
            answer: Object = self.status().get("lastHandledRequest") or {}
            return answer if answer.get("request") == value else {}

        return self.wait(f"{verb} handled", handled)

    def object(self) -> Object:
        """The InferenceService as last seen; empty before."""
        found: Object = self.arena.mirror.get("inferenceservices", self.namespace, self.service) or {}
        return found

    def status(self) -> Object:
        found: Object = self.object().get("status") or {}
        return found

    def candidate(self) -> Object:
        found: Object = self.status().get("candidate") or {}
        return found

    def conditions(self) -> dict[str, str]:
        """type -> "Status/Reason", of a status that speaks of the newest spec."""
        if self.status().get("observedGeneration") != (self.object().get("metadata") or {}).get("generation"):
            return {}
        return {c["type"]: f"{c['status']}/{c['reason']}" for c in self.status().get("conditions") or ()}

    def decisions(self) -> list[tuple[str, int, str]]:
        """(decision, weight, reason) of the history, oldest first, without what only held."""
        return [
            (one["decision"], one["weight"], one["reason"])
            for one in reversed(self.status().get("history") or [])
            if one["decision"] != "Held"
        ]

    # --- waiting --------------------------------------------------------------------------------

    def wait(self, what: str, check: Callable[[], T], timeout: float = PATIENCE) -> T:
        """The first true value of `check`."""
        return self.arena.mirror.wait(f"{self.service}: {what}", check, timeout, hint=self.describe)

    def expect(self, **want: str) -> Object:
        """Wait until these conditions are there (Type="Status/Reason"; "" for an absent one); returns the status."""

        def matches() -> bool:
            found = self.conditions()
            return bool(found) and all(found.get(kind, "") == value for kind, value in want.items())

        self.wait(f"{want}", matches)
        return self.status()

    def settled(self, number: str) -> Object:
        """Wait until a version serves and nothing is on its way; returns the status."""
        status = self.expect(Ready="True/Serving", Reconciling="", Stalled="")
        assert status["stable"]["version"] == self.name(number)
        self.wait("the traffic there", self.carried_out)
        return status

    def carried_out(self) -> bool:
        """Whether the routes were written as the status says."""
        stable, candidate = self.status().get("stable") or {}, self.candidate()
        weight = candidate.get("weight", 0)
        want = {stable.get("revision"): 100 - weight, candidate.get("revision"): weight}
        shares = {revision: share for revision, share in want.items() if share}
        routes = [self._history(route) for route in self.routes]
        return all(history[-1].shares == shares for history in routes if history)

    def promoted(self, number: str) -> bool:
        """Whether a version serves and nothing is on its way any more."""
        stable = self.status().get("stable") or {}
        done = self.conditions().keys() == {"Accepted", "Ready"}
        return done and stable.get("version") == self.name(number) and self.carried_out()

    def rolled_back(self, reason: str) -> Object:
        """Wait until the candidate was rolled back, and check what is said about it; returns the status."""
        status = self.expect(
            Ready="True/Serving", Degraded="True/RolledBack", Stalled="True/RolledBack", Reconciling=""
        )
        assert status["rejected"]["reason"] == reason, status["rejected"]
        self.wait("all traffic back", self.carried_out)
        assert "candidate" not in status
        return status

    def weight(self, weight: int) -> Object:
        """Wait until the candidate has this weight; returns it."""

        def reached() -> Object:
            return found if (found := self.candidate()).get("weight") == weight else {}

        return self.wait(f"weight {weight}", reached)

    # --- traffic --------------------------------------------------------------------------------

    def load(self, rate: float = 10) -> Load:
        """Send requests through the gateway until the scenario ends, and wait for the first answer."""
        load = Load(self.arena.gateway_url, self.host, self.service, rate)
        self.loads.append(self.arena.clients.start(load))
        self.wait("an answer through the gateway", lambda: any(answer.good for answer in list(load.answers)))
        # What came before the routes had reached the gateway is not the rollout's fault.
        first = next(answer.sent for answer in load.answers if answer.good)
        load.answers[:] = [answer for answer in load.answers if answer.sent >= first]
        return load

    def ask(self, prompt: str = "Where?", headers: dict[str, str] | None = None) -> Answer:
        """One request through the gateway."""
        return self.arena.clients.once(
            lambda session: ask(session, self.arena.gateway_url, self.host, self.service, prompt, headers=headers)
        )

    def newest(self, load: Load, count: int) -> set[str]:
        """The versions behind the last answers; failed ones have none."""
        return {answer.version for answer in load.answers[-count:]}

    def publish(self) -> None:
        """Lead the gateway to the plain Service: it chooses among its pods, as kube-proxy does."""
        rules = {"route": [{"destination": {"host": f"{self.service}.{self.namespace}.svc.cluster.local"}}]}
        route = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "published", "namespace": self.namespace},
            "spec": {"hosts": [self.host], "gateways": ["istio-system/gateway"], "http": [rules]},
        }
        path = f"/apis/networking.istio.io/v1/namespaces/{self.namespace}/virtualservices"
        self.arena.plane.api.create(path, route)

    def pods(self, number: str | None = None) -> list[Pod]:
        """The server pods that exist."""
        found = self.arena.kubelet.pods(self.namespace, self.name(number) if number else None)
        return [pod for pod in found if pod.labels[LABEL_NAME] == self.service]

    def ready_pods(self) -> set[str]:
        """Names of the pods that would answer and stay."""
        return {pod.name for pod in self.pods() if pod.server and pod.server.ready and not pod.deleted}

    def clock(self) -> float:
        """The time as the audit log writes it."""
        return time.time()

    def stop(self, load: Load) -> Load:
        """Send no more and wait for the answers."""
        self.loads.remove(load)
        self.arena.clients.stop(load)
        return load

    def start(self, number: str = "v1", **spec: Any) -> Load:
        """The beginning of most scenarios: a version serves under load."""
        self.register(number)
        self.serve(number, **spec)
        self.settled(number)
        return self.load()

    # --- what was ------------------------------------------------------------------------------

    def weights(self) -> list[Weights]:
        """The history of the weights at the gateway."""
        return self._history(f"{self.service}-gateways") or self._history(self.service)

    def _history(self, route: str) -> list[Weights]:
        return self.arena.record.weights(self.namespace, route, self.service)

    def statuses(self) -> list[tuple[float, Object]]:
        """The history of the status: (time, status)."""
        return self.arena.record.statuses(self.namespace, self.service)

    def candidate_weights(self, revision: str) -> list[int]:
        """What a revision got, write by write."""
        return [weights.shares.get(revision, 0) for weights in self.weights()]

    def check_laws(self) -> None:
        """What holds for every rollout, whatever became of it."""
        statuses = self.statuses()
        for route in self.routes:
            history = self._history(route)
            check_laws(history, self.steps)
            check_decided_first(history, statuses)
        lie, how = self.arena.witness.longest_lie(self.namespace, self.service)
        slowdown = self.arena.slowdown(0, time.time())
        assert lie <= NOTICE_SECONDS * slowdown, f"Ready was True for {lie:.1f} s while completions failed: {how}"
        rounds = self.arena.questions.rounds(self.namespace, self.service)
        if rounds:
            most = (rounds[-1] - rounds[0]) / INTERVAL + 1.5  # times in status are whole seconds
            assert len(rounds) <= most, f"Prometheus was asked too often: {rounds}"

    def check_undone_in_time(self, metric: str, breach: Callable[[float], bool], revision: str) -> None:
        """From the moment at which Prometheus showed a breach to the write that took the traffic away.

        The operator's own query is evaluated afterwards, for every fifth of a second of the rollout.
        """
        given, undone = self.given(revision), self.undone(revision)
        query = build_queries(self.namespace, self.service, INTERVAL)
        values = self._series(query[metric], given, undone + 1, revision)
        requests = dict(self._series(query["Requests"], given, undone + 1, revision))
        shown = next(at for at, value in values if breach(value) and requests.get(at, 0) >= CANARY["minRequests"])
        self.check_promise(f"{metric} breached for Prometheus", shown, undone)

    def given(self, revision: str) -> float:
        """When a revision first got a weight."""
        return next(weights.time for weights in self.weights() if weights.shares.get(revision))

    def undone(self, revision: str) -> float:
        """When the traffic was taken away from it."""
        return next(weights.time for weights in reversed(self.weights()) if revision not in weights.shares)

    def check_promise(self, what: str, since: float, until: float) -> None:
        """All traffic is back within an interval and two seconds, of a machine that is not overloaded."""
        slowdown = self.arena.slowdown(since, until)
        self.note(f"{what}, 100/0 after {until - since:.2f} s (slowdown of the machine: {slowdown:.1f})")
        assert until - since <= INTERVAL + 2 * slowdown

    def _series(self, query: str, start: float, end: float, revision: str) -> list[tuple[float, float]]:
        asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 0.2})
        url = f"{self.arena.prometheus_url}/api/v1/query_range?{asked}"
        with urllib.request.urlopen(url, timeout=10) as response:
            result = json.load(response)["data"]["result"]
        values = [one["values"] for one in result if one["metric"].get("revision") == revision]
        numbers = [(float(at), float(value)) for series in values for at, value in series]
        return [(at, value) for at, value in numbers if not math.isnan(value)]

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the load and remove the service."""
        for load in list(self.loads):
            self.stop(load)
        self.arena.plane.api.delete(f"{self.ours}/inferenceservices/{self.service}")

    def describe(self) -> str:
        """The status, for whoever reads a failure."""
        keep = ("conditions", "message", "stable", "candidate", "rejected", "analysis", "history")
        return json.dumps({key: self.status().get(key) for key in keep}, indent=1)

    def _patch(self, path: str, spec: Object) -> Object:
        patched: Object = self.arena.plane.api.merge(f"{self.ours}/{path}", {"spec": spec})
        return patched

    def _object(self, kind: str, name: str, spec: Object) -> Object:
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": "tunewright.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _condition(found: Object, kind: str) -> str:
    for condition in (found.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return str(condition["status"])
    return ""
