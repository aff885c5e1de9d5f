"""The command lines and configuration files of the cluster's components."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.cluster import build, controlplane, network, node, packages, pki, storage
from e2e.cluster.controlplane import Credentials, Endpoint

RUN = Path("/run-directory")
LOOPBACK = Endpoint("127.0.0.1", 6443, 2379, 2380)
NODE = Endpoint(network.HOST_IP, 6443, 2379, 2380)


def credentials() -> Credentials:
    pair = (RUN / "x.crt", RUN / "x.key")
    return Credentials(RUN / "ca.crt", RUN / "ca.key", pair, pair, pair, RUN / "tokens.csv")


def test_one_go_build_names_every_package_of_a_module() -> None:
    command = build.build_command(build.TOOLS, ["./pause", "./probe"], Path("/out"))
    assert command[:2] == ["go", "build"]
    assert command[-4:] == ["-o", "/out/", "./pause", "./probe"]
    assert "-trimpath" in command


def test_prometheus_finds_pods_and_nothing_else() -> None:
    command = build.build_command(build.PROMETHEUS, ["x"], Path("/out"))
    assert command[command.index("-tags") + 1] == "remove_all_sd,enable_kubernetes_sd"


def test_kubernetes_binaries_know_their_version() -> None:
    flags = build.version_flags("v1.34.4").split("-X ")
    assert "k8s.io/component-base/version.gitVersion=v1.34.4 " in flags
    assert "k8s.io/component-base/version.gitMinor=34 " in flags


def test_go_builds_into_caches_of_our_own() -> None:
    environment = build.build_environment(Path("/cache"))
    assert environment["GOMODCACHE"] == "/cache/go/mod"
    assert environment["GOCACHE"] == "/cache/go/build"
    assert environment["CGO_ENABLED"] == "0"


def test_a_changed_source_or_flag_makes_another_key(tmp_path: Path) -> None:
    module = tmp_path / "tools"
    module.mkdir()
    (module / "go.sum").write_text("one")
    first = build.module_key(build.TOOLS, tmp_path)
    assert first == build.module_key(build.TOOLS, tmp_path)
    assert first != build.module_key(build.Module("tools", "-w"), tmp_path)
    assert first != build.module_key(build.Module("tools", tags="fewer"), tmp_path)
    (module / "go.sum").write_text("two")
    assert first != build.module_key(build.TOOLS, tmp_path)


def test_the_pinned_version_is_the_one_in_go_mod() -> None:
    text = (build.SOURCES / "kubernetes" / "go.mod").read_text()
    assert f"require k8s.io/kubernetes {build.KUBERNETES_VERSION}\n" in text


def test_every_tier_names_known_programs() -> None:
    known = set(build.wanted(have_kubectl=False))
    assert {*build.NODE_TIER, *build.APISERVER_TIER, *build.CONTROLLERS, *build.MESH} <= known
    assert {target.module for target in build.TARGETS} == set(build.MODULES)
    assert "kubectl" not in build.wanted(have_kubectl=True)


def test_missing_programs_name_their_packages_once() -> None:
    programs = {"no-such-program": "one", "sh": "dash", "nor-this-one": "one", "/no/such/file": "two"}
    assert packages.missing_packages(programs) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ID=debian\n", True, id="Debian"),
        pytest.param('ID=ubuntu\nID_LIKE="debian"\n', True, id="a child of Debian"),
        pytest.param('ID=fedora\nVERSION_ID="42"\n', False, id="something else"),
    ],
)
def test_debian_is_recognised(tmp_path: Path, text: str, expected: bool) -> None:
    file = tmp_path / "os-release"
    file.write_text(text)
    assert packages.is_debian(file) is expected
    assert packages.is_debian(tmp_path / "absent") is False


def test_the_apiserver_authorizes_and_audits() -> None:
    argv = controlplane.kube_apiserver(RUN, NODE, credentials()).argv
    assert "--authorization-mode=Node,RBAC" in argv
    assert f"--audit-log-path={RUN}/audit.log" in argv
    assert "--bind-address=10.243.0.1" in argv
    assert not any("endpoint-reconciler" in word for word in argv)


def test_an_apiserver_on_the_loopback_publishes_no_endpoints() -> None:
    argv = controlplane.kube_apiserver(RUN, LOOPBACK, credentials()).argv
    assert "--endpoint-reconciler-type=none" in argv


def test_the_apiserver_is_known_by_every_name_that_is_used() -> None:
    names = controlplane.server_names(NODE)
    assert {"IP:10.243.0.1", "IP:127.0.0.1", "IP:10.96.0.1", "DNS:kubernetes.default.svc"} <= set(names)
    assert len(names) == len(set(names))


def test_the_audit_policy_keeps_what_users_do() -> None:
    *silent, recorded, rest = controlplane.audit_policy()["rules"]
    assert rest == {"level": "Metadata"}
    assert recorded["level"] == "RequestResponse"
    assert all(rule["level"] == "None" for rule in silent)
    assert all("users" in rule or "userGroups" in rule or "nonResourceURLs" in rule for rule in silent)


def test_etcd_does_not_wait_for_the_disk() -> None:
    argv = controlplane.etcd(RUN, LOOPBACK).argv
    assert "--unsafe-no-fsync" in argv
    assert "--listen-client-urls=http://127.0.0.1:2379" in argv


def test_the_recycler_is_given_only_where_there_are_volumes() -> None:
    without = controlplane.kube_controller_manager(1, RUN / "k", credentials())
    with_it = controlplane.kube_controller_manager(1, RUN / "k", credentials(), RUN / "recycler.json")
    (added,) = set(with_it.argv) - set(without.argv)
    assert added == f"--pv-recycler-pod-template-filepath-hostpath={RUN}/recycler.json"


def test_kwok_plays_only_the_nodes_that_are_marked() -> None:
    service = controlplane.kwok(8000, RUN / "k", RUN / "home")
    assert f"--manage-nodes-with-annotation-selector={controlplane.KWOK_ANNOTATION}=fake" in service.argv
    assert service.env == {"KWOK_WORKDIR": f"{RUN}/home"}


def test_a_fake_node_can_have_gpus() -> None:
    made = controlplane.fake_node("gpu-0", {"nvidia.com/gpu": "8"}, {"zone": "a"})
    assert made["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert made["status"]["allocatable"]["cpu"] == "64"
    assert made["metadata"]["labels"]["zone"] == "a"
    assert made["metadata"]["annotations"] == {controlplane.KWOK_ANNOTATION: "fake"}


def test_containerd_writes_only_below_the_run_and_image_directories() -> None:
    text = node.containerd_config(RUN, Path("/images"))
    paths = [line.split(" = ")[1] for line in text.splitlines() if ' = "/' in line]
    own = [path for path in paths if path != f'"{packages.CNI_PLUGINS}"']
    assert all(path.startswith((f'"{RUN}/', '"/images"')) for path in own)
    assert "restrict_oom_score_adj = true" in text


def test_the_kubelet_keeps_to_its_cgroup_and_directories() -> None:
    config = node.kubelet_config(RUN, RUN / "ca.crt", (RUN / "k.crt", RUN / "k.key"))
    assert config["cgroupRoot"] == "/tunewright"
    assert config["podLogsDir"] == f"{RUN}/pod-logs"
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["authentication"]["anonymous"] == {"enabled": False}
    argv = node.kubelet(RUN, RUN / "kubelet.json", RUN / "kubeconfig").argv
    assert f"--node-ip={network.NODE_IP}" in argv
    assert not network.NODE_IP.startswith("127.")


def test_everything_of_the_node_runs_in_its_network_namespace() -> None:
    assert network.inside(Path("/ns"), ("kubelet",)) == ("nsenter", "--net=/ns", "--", "kubelet")


def test_the_machine_reaches_pods_and_services_through_the_node() -> None:
    commands = [" ".join(command) for command in network.setup_commands(Path("/ns"))]
    assert f"ip route add {network.POD_CIDR} via {network.NODE_IP} dev {network.HOST_LINK}" in commands
    assert commands[-1].startswith(f"ip route add {controlplane.SERVICE_CIDR}")


def test_dns_is_served_for_the_address_that_pods_are_told() -> None:
    objects = {manifest["kind"]: manifest for _, manifest in network.dns_objects()}
    assert objects["Service"]["spec"]["clusterIP"] == network.DNS_IP
    assert objects["EndpointSlice"]["endpoints"][0]["addresses"] == [network.NODE_IP]
    config = node.kubelet_config(RUN, RUN / "ca.crt", (RUN / "k.crt", RUN / "k.key"))
    assert config["clusterDNS"] == [network.DNS_IP]
    assert f"kubernetes {config['clusterDomain']} " in network.corefile(RUN / "k")


def test_kube_proxy_leaves_connection_tracking_alone() -> None:
    assert set(network.kube_proxy_config(RUN / "k", "n")["conntrack"].values()) == {0, "0s"}


def test_exactly_one_storage_class_is_the_default() -> None:
    assert storage.storage_class("standard", default=True)["metadata"]["annotations"]
    assert not storage.storage_class("small", default=False)["metadata"]["annotations"]


def test_volumes_have_folders_of_their_own() -> None:
    made = storage.volumes(RUN)
    assert len({volume.path for volume in made}) == len(made) == storage.STANDARD_VOLUMES + storage.SMALL_VOLUMES
    spec = storage.persistent_volume(made[0])["spec"]
    assert spec["hostPath"]["path"] == f"{RUN}/standard-00"
    assert spec["persistentVolumeReclaimPolicy"] == "Recycle"


def test_certificates_for_servers_carry_their_names() -> None:
    command = pki.certificate_command(RUN, "server", "/CN=x", ["DNS:localhost"])
    assert "subjectAltName=DNS:localhost" in command
    assert "extendedKeyUsage=serverAuth,clientAuth" in command
    assert "extendedKeyUsage=clientAuth" in pki.certificate_command(RUN, "user", "/CN=x")


def test_a_user_is_a_subject_with_groups() -> None:
    assert pki.user_subject("jane", ["a", "b/c"]) == r"/O=a/O=b\/c/CN=jane"


def test_a_kubeconfig_is_what_kubectl_reads() -> None:
    config = pki.kubeconfig("https://10.0.0.1:6443", RUN / "ca.crt", {"token": "t"})
    assert json.loads(json.dumps(config)) == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "tunewright",
                "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority": f"{RUN}/ca.crt"},
            }
        ],
        "users": [{"name": "user", "user": {"token": "t"}}],
        "contexts": [{"name": "tunewright", "context": {"cluster": "tunewright", "user": "user"}}],
        "current-context": "tunewright",
    }
