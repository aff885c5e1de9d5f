"""The objects of a mesh against the real schemas of Istio and of the Gateway API, and under Istio's own analyser."""

import functools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from e2e.cluster.build import binary
from tests.routing import CANARY, CANDIDATE, RETIRED, STABLE, route
from tests.serving import CONFIG, NAMESPACE, approved, service
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_operator.manifests.server import Revision, build_disruption_budget, build_server
from tunewright_operator.manifests.traffic import KINDS, Split

Object = dict[str, Any]

FULL: Object = {
    "timeout": "10m",
    "connectionPool": {"maxConnections": 9, "maxPendingRequests": 9, "maxRequests": 9, "connectTimeout": "5s"},
    "hosts": ["guide.example.com"],
    "gateways": ["public", "edge/public"],
    "access": {"namespaces": ["shop"], "principals": ["cluster.local/ns/office/sa/desk"]},
}
COPIES = Split(STABLE, CANDIDATE, weight=0, mirror_weight=100, revisions=(STABLE, CANDIDATE, RETIRED))
CASES = {
    "Istio, nothing said": (Split(STABLE), {"provider": "Istio"}),
    "Istio, everything said": (CANARY, {"provider": "Istio"} | FULL),
    "Istio, copies, the pod by a header": (COPIES, {"provider": "Istio", "hashHeader": "x-session"}),
    "Istio, no retries, mutual TLS as the namespace has it": (
        CANARY,
        {"provider": "Istio", "retries": {"attempts": 0}, "mtls": "Unset"},
    ),
    "Gateway API, nothing said": (Split(STABLE), {"provider": "GatewayAPI", "gateways": ["edge/public"]}),
    "Gateway API, everything said": (
        COPIES,
        {"provider": "GatewayAPI", "gateways": ["public"], "hosts": ["*.example.com"], "timeout": "9999999h"},
    ),
}
each_case = pytest.mark.parametrize(("split", "traffic"), CASES.values(), ids=CASES)


def program(name: str) -> Path:
    """A file of the cluster's cache."""
    path = binary(name)
    if not path.exists():
        pytest.skip(f"{name} is not built: `python -m e2e.cluster build` does it")
    return path


# --- schemas ----------------------------------------------------------------------------------


@functools.cache
def validators() -> dict[tuple[str, str], Draft202012Validator]:
    """(apiVersion, kind) -> its schema, in which a field that the apiserver would drop is a mistake."""
    ours = {kind for kinds in KINDS.values() for kind in kinds}
    found = {}
    for file in ("istio-crds.yaml", "gateway-api-crds.yaml"):
        for definition in yaml.load_all(program(file).read_text(), yaml.CSafeLoader):
            spec = definition["spec"]
            for version in spec.get("versions", ()):
                name = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                if name in ours:
                    found[name] = Draft202012Validator(
                        closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
                    )
    assert found.keys() == ours
    return found


def closed(schema: Any) -> Any:
    """The schema without room for unknown fields; what stands beside `properties` in an `anyOf` says nothing new."""
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items() if name != "properties"}
    if "properties" not in schema:
        return inner
    properties = {name: closed(value) for name, value in schema["properties"].items()}
    strict = {"additionalProperties": False} if schema.get("type") == "object" else {}
    return strict | inner | {"properties": properties}


@each_case
def test_the_apiserver_takes_every_field(split: Split, traffic: Object) -> None:
    for one in route(split, traffic):
        if one["kind"] != "Service":
            errors = validators()[one["apiVersion"], one["kind"]].iter_errors(one["spec"])
            assert [f"{one['kind']} {error.json_path}: {error.message}" for error in errors] == []


def test_the_schemas_see_an_unknown_field() -> None:
    (rule,) = (one for one in route(CANARY, {"provider": "Istio"}) if one["kind"] == "DestinationRule")
    rule["spec"]["trafficPolicy"]["outlierDetection"]["consecutive5xx"] = 5
    assert not validators()[rule["apiVersion"], "DestinationRule"].is_valid(rule["spec"])


# --- analyser ---------------------------------------------------------------------------------


def surroundings(traffic: Object) -> list[Object]:
    """The namespace, the pods, and the Gateways that the service names."""
    obj = service(traffic=traffic)
    spec, model = InferenceServiceSpec.model_validate(obj["spec"]), approved()["spec"]
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}},
        },
        build_disruption_budget(obj),
    ]
    for revision in (STABLE, CANDIDATE, RETIRED):
        version = Revision("guide-v1", revision)
        objects += build_server(obj, spec, ModelVersionSpec.model_validate(model), version, CONFIG, 1)
    for gateway, host in (("team", "*.example.com"), ("edge", "*")):
        labels = {"istio": gateway}
        port = {"number": 80, "name": "http", "protocol": "HTTP"}
        objects += [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "public", "namespace": gateway},
                "spec": {"selector": labels, "servers": [{"port": port, "hosts": [host]}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "gateway", "namespace": gateway, "labels": labels},
                "spec": {"containers": [{"name": "istio-proxy", "image": "istio/proxyv2"}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "gateway", "namespace": gateway},
                "spec": {"selector": labels, "ports": [{"name": "http", "port": 80}]},
            },
        ]
    return objects


def analyze(objects: Sequence[Object], directory: Path) -> list[str]:
    """What `istioctl analyze` has to say, as `CODE message`."""
    path = directory / "objects.yaml"
    path.write_text("\n---\n".join(json.dumps(one) for one in objects))
    options = ["--use-kube=false", f"--namespace={NAMESPACE}", "--output=json"]
    command = [str(program("istioctl")), "analyze", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    return [f"{one['code']} {one['message']}" for one in json.loads(done.stdout) or ()]


@each_case
def test_istios_analyser_finds_nothing(split: Split, traffic: Object, tmp_path: Path) -> None:
    assert analyze([*surroundings(traffic), *route(split, traffic)], tmp_path) == []


def test_istios_analyser_looks(tmp_path: Path) -> None:
    """The same objects without the subsets that the routes use."""
    traffic: Object = {"provider": "Istio"}
    objects = [one for one in route(CANARY, traffic) if one["kind"] != "DestinationRule"]
    found = analyze([*surroundings(traffic), *objects], tmp_path)
    assert any(one.startswith("IST0101") and STABLE in one for one in found)
