"""The pods of an InferenceService: what makes a revision, what a revision is made of, and how it is scaled."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.restricted import violations
from tests.serving import CONFIG, DIGEST, NAMESPACE, approved, service
from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import ANNOTATION_SPEC_HASH
from tunewright_api.server_config import ServerConfig
from tunewright_operator.manifests.server import (
    PRE_STOP_SECONDS,
    Revision,
    build_disruption_budget,
    build_revision,
    build_server,
    scale_patch,
)
from tunewright_operator.plan import plan, with_hash

Object = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
REVISION = Revision("guide-v1", "1a2b3c4d")


def model(name: str = "guide-v1", **spec: Any) -> ModelVersionSpec:
    """spec of an approved ModelVersion."""
    return ModelVersionSpec.model_validate(approved(name, **spec)["spec"])


def spec_of(obj: Object) -> InferenceServiceSpec:
    """spec of an InferenceService."""
    return InferenceServiceSpec.model_validate(obj["spec"])


def build(obj: Object, replicas: int = 1, revision: Revision = REVISION) -> tuple[Object, ...]:
    """ConfigMap and Deployment."""
    return build_server(obj, spec_of(obj), model(), revision, CONFIG, replicas)


def deployment(**spec: Any) -> Object:
    """The Deployment of a service with this spec."""
    return build(service(**spec))[1]


def pod(**spec: Any) -> Object:
    """spec of the pods of a service with this spec."""
    found: Object = deployment(**spec)["spec"]["template"]["spec"]
    return found


def test_the_pods_are_as_written_down() -> None:
    obj = service(
        engine={"maxModelLen": 512, "tensorParallelSize": 2},
        sampling={"temperature": 0.2, "maxTokens": 256},
        resources={"cpu": 8, "memory": "64Gi", "nvidia.com/gpu": 2},
        scheduling={"nodeSelector": {"gpu": "a100"}, "priorityClassName": "serving"},
        drainSeconds=120,
    )
    path = GOLDEN / "inferenceservice-pods.yaml"
    children = [*build(obj, replicas=2), build_disruption_budget(obj)]
    # Through JSON: YAML would write a value that two places share as an anchor.
    text = yaml.safe_dump_all(json.loads(json.dumps(children)), sort_keys=False)
    if not path.exists():
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: remove it and run again if the change is meant"


@pytest.mark.parametrize("resources", [None, {"cpu": 1}, {"nvidia.com/gpu": 1}], ids=["none", "cpu", "gpu"])
def test_the_pods_pass_pod_security_restricted(resources: Object | None) -> None:
    assert violations(pod(resources=resources)) == []


def test_the_server_reads_who_it_is_and_what_to_serve() -> None:
    config_map, _ = build(service(sampling={"maxTokens": 64}, drainSeconds=5, resources={"nvidia.com/gpu": 1}))
    read = ServerConfig.model_validate_json(config_map["data"]["config.json"])
    assert read.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"engine"}) == {
        "model": {"artifact": "/mnt/claims/data/models/guide-v1", "digest": DIGEST, "servedName": "guide"},
        "identity": {"namespace": NAMESPACE, "service": "guide", "version": "guide-v1", "revision": "1a2b3c4d"},
        "sampling": {"maxTokens": 64},
        "gpus": 1,
        "port": 8000,
        "healthPort": 8001,
        "drainSeconds": 5,
    }


# --- what makes a revision --------------------------------------------------------------------

ASKED: Object = {"engine": {"maxModelLen": 512}, "sampling": {"maxTokens": 8}, "resources": {"cpu": 1}}


def revision(*, version: str = "guide-v1", server_image: str = "server:1", digest: str = DIGEST, **spec: Any) -> str:
    """Name of the revision of a spec."""
    artifact = approved()["spec"]["artifact"] | {"digest": digest}
    images = replace(CONFIG, server_image=server_image)
    obj = service()
    obj["spec"] |= ASKED | spec
    return build_revision(version, model(artifact=artifact), spec_of(obj), images).name


@pytest.mark.parametrize(
    "change",
    [
        {"version": "guide-v2"},
        {"digest": "sha256:" + "b" * 64},
        {"server_image": "server:2"},
        {"engine": {"maxModelLen": 1024}},
        {"sampling": {"maxTokens": 9}},
        {"sampling": None},
        {"resources": {"cpu": 2}},
        {"scheduling": {"nodeSelector": {"gpu": "a100"}}},
        {"drainSeconds": 31},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_makes_the_answers_makes_another_revision(change: Object) -> None:
    assert revision(**change) != revision()


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 7},
        {"traffic": {"provider": "Istio", "timeout": "5m"}},
        {"rollout": {"strategy": "Canary", "steps": [10, 50]}},
        {"model": {"alias": {"modelName": "guide", "name": "production"}}},
        {"drainSeconds": 30},
    ],
    ids=["replicas", "traffic", "rollout", "an alias of the same version", "a default that is written out"],
)
def test_what_does_not_make_the_answers_makes_none(change: Object) -> None:
    assert revision(**change) == revision()


def test_neither_does_the_order_of_the_keys() -> None:
    assert revision(resources={"cpu": 1, "memory": "1Gi"}) == revision(resources={"memory": "1Gi", "cpu": 1})


def test_children_of_a_long_name_are_valid_and_their_own() -> None:
    """A Service has at most 63 characters, and so have label values."""
    names = {
        build(service() | {"metadata": service()["metadata"] | {"name": name}})[1]["metadata"]["name"]
        for name in ("a" * 54, "a" * 62, "a" * 63)
    }
    assert {len(name) for name in names} <= {63, 62, 61}
    assert len(names) == 3


# --- how pods live and end --------------------------------------------------------------------


def test_a_pod_has_the_time_that_its_streams_were_promised() -> None:
    given = pod(drainSeconds=600)
    (container,) = given["containers"]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": PRE_STOP_SECONDS}}
    assert given["terminationGracePeriodSeconds"] >= PRE_STOP_SECONDS + 600


def test_loading_takes_its_time_and_a_start_that_hangs_does_not() -> None:
    """/live itself tells a slow load from a stuck one; the startup probe only waits for the port to open."""
    (container,) = pod()["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/live", "readiness": "/ready", "liveness": "/live"}
    startup = container["startupProbe"]
    assert 60 <= startup["periodSeconds"] * startup["failureThreshold"] <= 300


def test_the_pods_of_a_revision_spread_over_nodes_and_zones_where_they_can() -> None:
    made = deployment()
    constraints = made["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(one["labelSelector"] == made["spec"]["selector"] for one in constraints)
    assert {one["whenUnsatisfiable"] for one in constraints} == {"ScheduleAnyway"}


def test_a_node_with_the_only_pod_can_be_drained() -> None:
    budget = build_disruption_budget(service())
    assert budget["spec"]["maxUnavailable"] == 1
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_prometheus_finds_the_metrics_on_the_health_port() -> None:
    made = deployment()["spec"]["template"]
    annotations = made["metadata"]["annotations"]
    assert {name: value for name, value in annotations.items() if name.startswith("prometheus.io/")} == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8001",
        "prometheus.io/path": "/metrics",
    }
    assert 8001 in {port["containerPort"] for port in made["spec"]["containers"][0]["ports"]}


# --- scaling ----------------------------------------------------------------------------------


def stored(manifest: Object) -> Object:
    """The manifest as the apiserver has it once it was applied."""
    found = copy.deepcopy(with_hash(manifest))
    found["metadata"]["uid"] = "uid-1"
    return found


def merged(target: Object, patch: Object) -> Object:
    """JSON merge patch (RFC 7396)."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name, {}), value) if isinstance(value, dict) else value
    return result


def test_a_deployment_that_has_its_pods_is_left_alone() -> None:
    assert scale_patch(build(service(), replicas=3)[1], 3) is None


def test_scaling_changes_the_number_of_pods_and_nothing_else() -> None:
    was = stored(build(service(), replicas=3)[1])
    patch = scale_patch(was, 0)
    assert patch is not None
    now = merged(was, patch)
    assert scale_patch(now, 0) is None
    assert with_hash(now | {"metadata": was["metadata"]}) == with_hash(was | {"spec": was["spec"] | {"replicas": 0}})


def test_what_was_scaled_is_written_again_once_it_is_asked_for() -> None:
    """Back to a revision that was scaled to zero: its manifest is the old one, its Deployment is not."""
    wanted = build(service(), replicas=3)[1]
    was = stored(wanted)
    assert plan((wanted,), (was,)).apply == ()
    scaled = merged(was, scale_patch(was, 0) or {})
    assert ANNOTATION_SPEC_HASH not in scaled["metadata"]["annotations"]
    (again,) = plan((wanted,), (scaled,)).apply
    assert (again["spec"]["replicas"], again["metadata"]["uid"]) == (3, "uid-1")
