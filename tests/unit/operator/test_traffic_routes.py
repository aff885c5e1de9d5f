"""What leads requests to the revisions of an InferenceService: whole objects for each provider, and what holds for
every split of the traffic."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.routing import (
    CANARY,
    CANDIDATE,
    OPERATOR_NAMESPACE,
    RETIRED,
    STABLE,
    asked_by_header,
    copies,
    only,
    route,
    rules,
    selected,
    shares,
    splits,
)
from tests.serving import service
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.kube.resources import PLURALS
from tunewright_operator.manifests.traffic import KINDS, Split, lost
from tunewright_operator.plan import key
from tunewright_operator.rbac import VERBS

Object = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
EVERYTHING: Object = {
    "provider": "Istio",
    "hosts": ["guide.example.com", "*.guide.example.com"],
    "gateways": ["public", "edge/public", "team/public"],
    "timeout": "10m",
    "retries": {"attempts": 1},
    "loadBalancer": "RoundRobin",
    "connectionPool": {
        "maxConnections": 100,
        "maxPendingRequests": 50,
        "maxRequests": 200,
        "connectTimeout": "5s",
    },
    "outlierDetection": {
        "consecutiveErrors": 3,
        "interval": "5s",
        "baseEjectionTime": "1m",
        "maxEjectionPercent": 30,
    },
    "mtls": "Permissive",
    "access": {"namespaces": ["shop"], "principals": ["cluster.local/ns/office/sa/desk"]},
}
ISTIO: Object = {"provider": "Istio"}
GATEWAY: Object = {"provider": "GatewayAPI", "gateways": ["edge/public"], "hosts": ["guide.example.com"]}
ROUTED = [ISTIO, EVERYTHING, GATEWAY]


@pytest.mark.parametrize(
    ("name", "split", "traffic"),
    [
        ("plain", CANARY, {}),
        ("istio", Split(STABLE, revisions=(STABLE,)), ISTIO),
        (
            "istio-everything",
            replace(CANARY, mirror_weight=50, revisions=(STABLE, CANDIDATE, RETIRED)),
            EVERYTHING,
        ),
        ("gateway-api", replace(CANARY, mirror_weight=50), GATEWAY | {"timeout": "90s"}),
    ],
)
def test_the_objects_are_the_golden_ones(name: str, split: Split, traffic: Object) -> None:
    path = GOLDEN / f"inferenceservice-{name}.yaml"
    # Through JSON: YAML would write a value that two places share as an anchor.
    text = yaml.safe_dump_all(json.loads(json.dumps(route(split, traffic))), sort_keys=False)
    if not path.exists():
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: remove it and run again if the change is meant"


# --- laws -------------------------------------------------------------------------------------


def routers(objects: tuple[Object, ...]) -> list[Object]:
    """Whatever chooses among revisions."""
    return [one for one in objects if one["kind"] in {"VirtualService", "HTTPRoute"}]


@settings(deadline=None)
@given(splits(), st.sampled_from(ROUTED))
def test_weights_add_up_to_100_and_lead_where_the_split_says(split: Split, traffic: Object) -> None:
    objects = route(split, traffic)
    asked = {split.stable: 100 - split.weight} | ({split.candidate: split.weight} if split.candidate else {})
    assert routers(objects)
    for router in routers(objects):
        *_, last = rules(router)
        found = shares(objects, last)
        assert found == {revision: percent for revision, percent in asked.items() if percent}
        assert sum(found.values()) == 100


@settings(deadline=None)
@given(splits(), st.sampled_from(ROUTED))
def test_a_header_leads_to_the_revision_that_it_names_before_any_weight(split: Split, traffic: Object) -> None:
    objects = route(split, traffic)
    for router in routers(objects):
        *named, last = rules(router)
        assert asked_by_header(last) is None
        assert {asked_by_header(rule) for rule in named} == set(split.revisions)
        assert all(shares(objects, rule) == {asked_by_header(rule): 100} for rule in named)
        assert all(copies(objects, rule) == {} for rule in named)


@settings(deadline=None)
@given(splits(), st.sampled_from(ROUTED))
def test_copies_go_to_the_candidate_alone(split: Split, traffic: Object) -> None:
    objects = route(split, traffic)
    for router in routers(objects):
        *_, last = rules(router)
        wanted = {split.candidate: split.mirror_weight} if split.mirror_weight else {}
        assert copies(objects, last) == wanted


@settings(deadline=None)
@given(splits(), st.sampled_from([*ROUTED, {}]))
def test_each_revision_has_a_service_of_its_own(split: Split, traffic: Object) -> None:
    objects = route(split, traffic)
    assert {selected(objects, f"guide-{revision}") for revision in split.revisions} == set(split.revisions)


@settings(deadline=None)
@given(splits(), st.sampled_from(ROUTED))
def test_clients_outside_the_mesh_meet_no_candidate(split: Split, traffic: Object) -> None:
    assert selected(route(split, traffic), "guide") == split.stable


@settings(deadline=None)
@given(splits())
def test_a_plain_service_selects_all_pods_only_while_two_revisions_share(split: Split) -> None:
    both = 0 < split.weight < 100
    alone = split.candidate if split.weight == 100 else split.stable
    assert selected(route(split), "guide") == (None if both else alone)


@settings(deadline=None)
@given(splits(), st.sampled_from([*ROUTED, {}]))
def test_what_is_written_does_not_depend_on_the_order_of_the_revisions(split: Split, traffic: Object) -> None:
    backwards = replace(split, revisions=tuple(reversed(split.revisions)))
    assert route(backwards, traffic) == route(split, traffic)


@settings(deadline=None)
@given(splits(), st.sampled_from(ROUTED))
def test_a_promotion_moves_weights_and_leaves_the_subsets_alone(split: Split, traffic: Object) -> None:
    promoted = Split(split.candidate or split.stable, revisions=split.revisions)
    before, after = ({key(one): one for one in route(each, traffic)} for each in (split, promoted))
    changed = {kind for kind, name in before if before[kind, name] != after[kind, name]}
    assert before.keys() == after.keys()
    assert changed <= {"VirtualService", "HTTPRoute", "Service"}


@pytest.mark.parametrize("traffic", [*ROUTED, {}])
def test_what_is_referred_to_is_applied_first(traffic: Object) -> None:
    order = [one["kind"] for one in route(CANARY, traffic)]
    ranks = {"Service": 0, "PeerAuthentication": 1, "AuthorizationPolicy": 1, "DestinationRule": 2}
    before_routes = [ranks.get(kind, 3) for kind in order if kind != "Service"]
    assert before_routes == sorted(before_routes)
    assert order.index("Service") == 0
    routed = [place for place, kind in enumerate(order) if kind in {"VirtualService", "HTTPRoute"}]
    services = [place for place, kind in enumerate(order) if kind == "Service"]
    assert not routed or max(services) < min(routed)


@pytest.mark.parametrize("provider", TrafficProvider)
def test_the_operator_knows_and_may_write_every_kind_of_a_provider(provider: TrafficProvider) -> None:
    traffic = {"Istio": EVERYTHING, "GatewayAPI": GATEWAY, "None": {}}[provider]
    written = {(one["apiVersion"], one["kind"]) for one in route(CANARY, traffic)}
    assert written == {*KINDS[provider], ("v1", "Service")}
    for api_version, kind in KINDS[provider]:
        group = api_version.split("/")[0]
        assert VERBS[group, PLURALS[api_version, kind]] == {"list", "create", "patch", "delete"}


@pytest.mark.parametrize("traffic", [*ROUTED, {}])
def test_the_names_of_a_service_with_a_long_name_are_valid_and_different(traffic: Object) -> None:
    objects = route(CANARY, traffic, name="a" * 63)
    assert max(len(one["metadata"]["name"]) for one in objects) <= 63
    assert len({key(one) for one in objects}) == len(objects)


# --- what a user's words become ---------------------------------------------------------------


def istio(kind: str, name: str = "guide", split: Split = CANARY, **traffic: Any) -> Object:
    """spec of one of Istio's objects."""
    found: Object = only(route(split, ISTIO | traffic), kind, name)["spec"]
    return found


def weights(**traffic: Any) -> Object:
    """The rule with the weights."""
    found: Object = istio("VirtualService", **traffic)["http"][-1]
    return found


def test_without_a_timeout_a_stream_may_take_any_time() -> None:
    assert all("timeout" not in rule for rule in istio("VirtualService")["http"])
    assert {rule["timeout"] for rule in istio("VirtualService", timeout="10m")["http"]} == {"10m"}


def test_only_what_has_not_reached_a_model_is_tried_again() -> None:
    safe = "connect-failure,refused-stream,reset-before-request"
    assert weights()["retries"] == {"attempts": 2, "retryOn": safe}
    assert weights(retries={"attempts": 5})["retries"] == {"attempts": 5, "retryOn": safe}


def test_no_attempts_switch_retries_off() -> None:
    """Leaving them out would bring Istio's own back, which try again after a 503."""
    assert weights(retries={"attempts": 0})["retries"] == {"attempts": 0}


def test_requests_with_the_same_header_go_to_the_same_pod() -> None:
    policy = istio("DestinationRule", hashHeader="x-session")["trafficPolicy"]
    balancer = {"consistentHash": {"httpHeaderName": "x-session"}, "localityLbSetting": {"enabled": False}}
    assert policy["loadBalancer"] == balancer


def test_without_a_word_requests_go_where_the_fewest_are_and_failing_pods_are_left_out() -> None:
    assert istio("DestinationRule")["trafficPolicy"] == {
        "connectionPool": {"tcp": {"tcpKeepalive": {"time": "60s", "interval": "10s", "probes": 3}}},
        "outlierDetection": {
            "consecutive5xxErrors": 5,
            "interval": "10s",
            "baseEjectionTime": "30s",
            "maxEjectionPercent": 50,
        },
        "loadBalancer": {"simple": "LEAST_REQUEST", "localityLbSetting": {"enabled": False}},
    }


def test_names_of_a_user_never_reach_the_mesh() -> None:
    """There, a name could be that of somebody else's service."""
    hosts = ["payments.bank.svc.cluster.local"]
    inside = istio("VirtualService", hosts=hosts, gateways=["public"])
    outside = istio("VirtualService", "guide-gateways", hosts=hosts, gateways=["public"])
    assert (inside["hosts"], inside["gateways"]) == (["guide.team.svc.cluster.local"], ["mesh"])
    assert (outside["hosts"], outside["gateways"]) == (hosts, ["team/public"])
    assert inside["http"] == outside["http"]


def test_a_gateway_called_mesh_is_a_gateway() -> None:
    assert istio("VirtualService", "guide-gateways", gateways=["mesh"])["gateways"] == ["team/mesh"]


@pytest.mark.parametrize("provider", ["Istio", "GatewayAPI"])
def test_a_gateway_without_hosts_answers_for_the_service_alone(provider: str) -> None:
    """A route for any name would take the requests of every other service of a shared Gateway."""
    objects = route(CANARY, {"provider": provider, "gateways": ["public"]})
    router = routers(objects)[-1]["spec"]
    assert router.get("hosts", router.get("hostnames")) == ["guide.team.svc.cluster.local"]


def test_health_is_open_to_everybody_and_the_api_is_not() -> None:
    strict = istio("PeerAuthentication")
    assert strict["mtls"] == {"mode": "STRICT"}
    assert strict["portLevelMtls"] == {"8001": {"mode": "PERMISSIVE"}}
    assert istio("PeerAuthentication", mtls="Permissive")["mtls"] == {"mode": "PERMISSIVE"}
    unset = istio("PeerAuthentication", mtls="Unset")
    assert unset == {name: strict[name] for name in ("selector", "portLevelMtls")}


def test_who_may_call_and_nobody_else() -> None:
    policy = istio("AuthorizationPolicy", access={"namespaces": ["shop", OPERATOR_NAMESPACE]})
    assert (policy["action"], policy["rules"]) == (
        "ALLOW",
        [
            {
                "from": [{"source": {"namespaces": ["shop", OPERATOR_NAMESPACE]}}],
                "to": [{"operation": {"ports": ["8000"]}}],
            },
            {"to": [{"operation": {"ports": ["8001"]}}]},
        ],
    )


def test_without_access_everybody_may_call() -> None:
    assert not any(one["kind"] == "AuthorizationPolicy" for one in route(CANARY, ISTIO))


@pytest.mark.parametrize(
    ("written", "means"),
    [(None, "0s"), ("90s", "1m30s"), ("10m", "10m"), ("24h", "24h"), ("9999999s", "2777h46m39s")],
)
def test_a_timeout_of_the_gateway_api_has_at_most_five_digits_a_unit(written: str | None, means: str) -> None:
    traffic = GATEWAY | ({"timeout": written} if written else {})
    found = only(route(CANARY, traffic), "HTTPRoute")["spec"]["rules"]
    assert {rule["timeouts"]["request"] for rule in found} == {means}


@pytest.mark.parametrize(
    ("traffic", "split", "says"),
    [
        ({"provider": "Istio"}, CANARY, ""),
        (GATEWAY, CANARY, "only requests that enter by a Gateway are shared by weight"),
        ({}, CANARY, "its share of the pods, 25 percent instead of 20; there are no copies of requests"),
        ({}, Split(STABLE), "its share of the pods; there are no copies of requests"),
    ],
    ids=["Istio loses nothing", "Gateway API", "plain, on the way", "plain, at rest"],
)
def test_status_says_what_is_lost(traffic: Object, split: Split, says: str) -> None:
    spec = InferenceServiceSpec.model_validate(service(traffic=traffic)["spec"])
    sentence = lost(spec, split, {STABLE: 3, CANDIDATE: 1})
    assert says in sentence if says else sentence == ""
