"""Command lines, configuration and objects of the mesh."""

from __future__ import annotations

import itertools
import json
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from e2e.cluster import backends, controlplane
from e2e.cluster.build import binary
from e2e.cluster.errors import ClusterError
from e2e.cluster.mesh import addresses, envoy, istio, pod_addresses, prometheus

IP = "10.246.0.1"
RUN = Path("/run-directory")
KUBECONFIG = RUN / "kubeconfig"


def test_istiod_serves_discovery_and_nothing_for_sidecars() -> None:
    service = istio.istiod(IP, KUBECONFIG, RUN / "mesh.json")
    assert (service.name, service.argv) == (
        "istiod",
        (
            str(binary("pilot-discovery")),
            "discovery",
            "--kubeconfig=/run-directory/kubeconfig",
            "--meshConfig=/run-directory/mesh.json",
            "--networksConfig=/dev/null",
            "--grpcAddr=10.246.0.1:15010",
            "--httpAddr=10.246.0.1:15014",
            "--monitoringAddr=",
            "--httpsAddr=",
            "--secureGRPCAddr=",
            "--ctrlz_port=0",
            "--shutdownDuration=1s",
        ),
    )
    switched_off = {
        "PILOT_ENABLE_METADATA_EXCHANGE",
        "PILOT_ENABLE_TELEMETRY_LABEL",
        "PILOT_ENABLE_ALPN_FILTER",
        "ENABLE_CA_SERVER",
        "INJECT_ENABLED",
        "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER",
        "ENABLE_LEADER_ELECTION",
    }
    assert {name for name, value in service.env.items() if value == "false"} == switched_off


def test_gateway_and_pods_speak_plain_http() -> None:
    assert istio.mesh_config() == {
        "rootNamespace": "istio-system",
        "enableAutoMtls": False,
        "ingressControllerMode": "OFF",
    }


def test_envoy_is_istios_ingress_gateway() -> None:
    stream = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    made = envoy.bootstrap(IP)
    assert {tag["tag_name"] for tag in made.pop("stats_config")["stats_tags"]} == set(envoy.STATS_TAGS)
    assert made == {
        "node": {
            "id": "router~10.246.0.1~ingressgateway.istio-system~istio-system.svc.cluster.local",
            "cluster": "ingressgateway.istio-system",
            "metadata": {
                "CLUSTER_ID": "Kubernetes",
                "INSTANCE_IPS": "10.246.0.1",
                "LABELS": {"istio": "ingressgateway"},
                "NAMESPACE": "istio-system",
            },
        },
        "admin": {"address": {"socket_address": {"address": "10.246.0.1", "port_value": 15000}}},
        "dynamic_resources": {
            "lds_config": stream,
            "cds_config": stream,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds-grpc",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        http2: {
                            "@type": f"type.googleapis.com/{http2}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds-grpc",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {
                                                "socket_address": {"address": "10.246.0.1", "port_value": 15010}
                                            }
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ]
        },
    }


def test_envoy_shares_no_memory_with_another_one() -> None:
    assert envoy.envoy(RUN / "envoy.json").argv == (
        *(str(envoy.program()), "--config-path", "/run-directory/envoy.json"),
        *("--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"),
    )


def test_the_wheel_brings_a_program() -> None:
    assert os.access(envoy.program(), os.X_OK)


def test_prometheus_scrapes_annotated_pods_envoy_and_named_targets() -> None:
    made = prometheus.configuration(KUBECONFIG, f"{IP}:15000", rules=RUN / "r", targets=RUN / "t", interval="2s")
    assert made == {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": ["/run-directory/r/*.yaml"],
        "scrape_configs": [
            {
                "job_name": "pods",
                "honor_labels": True,
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": "/run-directory/kubeconfig"}],
                "relabel_configs": prometheus.pod_relabeling(),
            },
            {
                "job_name": "envoy",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": ["10.246.0.1:15000"]}],
            },
            {
                "job_name": "targets",
                "file_sd_configs": [{"files": ["/run-directory/t/*.json"], "refresh_interval": "1s"}],
            },
        ],
    }


def test_prometheus_keeps_its_data_in_the_run_directory() -> None:
    assert prometheus.prometheus(IP, RUN / "prometheus.json", RUN / "data").argv == (
        str(binary("prometheus")),
        "--config.file=/run-directory/prometheus.json",
        "--storage.tsdb.path=/run-directory/data",
        "--web.listen-address=10.246.0.1:9090",
        "--web.enable-lifecycle",
        "--log.level=warn",
    )


def test_a_target_has_its_own_job_and_path() -> None:
    assert json.loads(prometheus.target_file("operator", "127.0.0.1:8080", "/m", {"team": "a"})) == [
        {"targets": ["127.0.0.1:8080"], "labels": {"job": "operator", "__metrics_path__": "/m", "team": "a"}}
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            {"resultType": "vector", "result": [{"metric": {"pod": "a"}, "value": [1.5, "2"]}]},
            [{"metric": {"pod": "a"}, "value": [1.5, "2"]}],
            id="a vector",
        ),
        pytest.param(
            {"resultType": "scalar", "result": [1.5, "2"]}, [{"metric": {}, "value": [1.5, "2"]}], id="a scalar"
        ),
        pytest.param({"resultType": "vector", "result": []}, [], id="nothing"),
    ],
)
def test_the_samples_of_a_query_are_read(data: object, expected: object) -> None:
    assert prometheus.result(200, json.dumps({"status": "success", "data": data})) == expected


def test_a_refused_query_says_why() -> None:
    with pytest.raises(ValueError, match=r"^parse error$"):
        prometheus.result(400, json.dumps({"status": "error", "error": "parse error"}))


def test_services_have_the_endpoint_that_they_are_given() -> None:
    made = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for _, manifest in (*istio.objects(IP, 8080), *prometheus.objects(IP))
    }
    for name, port, target in (("istio-ingressgateway", 80, 8080), ("prometheus", 9090, 9090)):
        (served,) = made["Service", name]["spec"]["ports"]
        endpoints = made["EndpointSlice", name]
        assert served["port"] == port
        assert [one["port"] for one in endpoints["ports"]] == [target]
        assert [one["addresses"] for one in endpoints["endpoints"]] == [[IP]]
        assert endpoints["metadata"]["labels"]["kubernetes.io/service-name"] == name
    assert made["Service", "istio-ingressgateway"]["spec"]["ports"][0]["targetPort"] == 8080


def test_every_object_is_applied_at_its_own_path() -> None:
    for path, manifest in (*istio.objects(IP, 8080), *prometheus.objects(IP)):
        group = manifest["apiVersion"]
        root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
        meta = manifest["metadata"]
        space = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
        plural = manifest["kind"].lower() + ("es" if manifest["kind"].endswith("s") else "s")
        assert path == f"{root}{space}/{plural}/{meta['name']}"


def test_definitions_of_all_kinds_are_read() -> None:
    text = "---\n".join(f"kind: {kind}\nmetadata: {{name: x}}\n" for kind in istio.DEFINITIONS)
    assert [path for path, _ in istio.definitions(text)] == [f"{root}/x" for root in istio.DEFINITIONS.values()]


def test_istioctl_analyzes_files_alone_or_on_top_of_a_cluster() -> None:
    options = ["--output=json", "--meshConfigFile=/run-directory/mesh.json", "a.yaml"]
    program = [str(binary("istioctl")), "analyze"]
    config, files = RUN / "mesh.json", [Path("a.yaml")]
    alone = ["--use-kube=false", "--all-namespaces"]
    live = ["--kubeconfig=/run-directory/kubeconfig", "--namespace=team"]
    assert istio.analyze_command(config, files) == [*program, *alone, *options]
    assert istio.analyze_command(config, files, (KUBECONFIG, "team")) == [*program, *live, *options]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [("Info", ["a", "b", "c"]), ("Warning", ["b", "c"]), ("Error", ["c"])],
    ids=["everything", "warnings and errors", "errors"],
)
def test_findings_are_kept_from_a_level_on(threshold: str, expected: list[str]) -> None:
    output = json.dumps(
        [{"code": c, "level": level} for c, level in zip("abc", ("Info", "Warning", "Error"), strict=True)]
    )
    assert [one["code"] for one in istio.findings(output, threshold)] == expected
    assert istio.findings("", threshold) == []


def test_what_istiod_and_prometheus_read_is_not_audited() -> None:
    (rule, *_) = controlplane.audit_policy()["rules"]
    assert rule["level"] == "None"
    assert {"system:istiod", "system:prometheus"} <= set(rule["users"])


def test_a_part_of_the_range_is_made_local_and_given_back() -> None:
    part = IPv4Network("10.246.16.0/20")
    for action in ("replace", "delete"):
        assert " ".join(addresses.route_command(action, part)) == f"ip route {action} local 10.246.16.0/20 dev lo"


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, IPv4Network]]:
    """The routes that would be made: nothing of this machine is changed."""
    made: list[tuple[str, IPv4Network]] = []
    monkeypatch.setattr(addresses, "_route", lambda action, part: made.append((action, part)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def test_two_that_ask_for_addresses_never_meet(routes: list[tuple[str, IPv4Network]]) -> None:
    with pod_addresses() as first, pod_addresses() as second:
        ours = [set(map(IPv4Address, itertools.islice(each, 100))) for each in (first, second)]
    assert [len(each) for each in ours] == [100, 100]
    assert not ours[0] & ours[1]
    assert all(address in addresses.RANGE for each in ours for address in each)
    assert [action for action, _ in routes] == ["replace", "replace", "delete", "delete"]


def test_addresses_are_given_back_after_a_failure(routes: list[tuple[str, IPv4Network]]) -> None:
    for _ in range(20):  # more often than there are parts
        with pytest.raises(OSError, match="no luck"), pod_addresses():
            raise OSError("no luck")
    assert [action for action, _ in routes] == ["replace", "delete"] * 20


def test_addresses_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="need root"), pod_addresses():
        pass


def test_only_our_own_cluster_brings_a_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (backends.Given(), backends.Kind()):
        with pytest.raises(ClusterError, match="Only CLUSTER=local brings a mesh"):
            backend.up(lambda _: pytest.fail("a step was begun"), mesh=True)
