"""The children of a FineTuneJob, as golden files, and what must hold for all of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training import CONFIG
from tests.training import job as build_job
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.names import ENV_RENDEZVOUS_ADDRESS, ExitCode, Stage
from tunewright_api.quantity import parse_quantity
from tunewright_api.results import ExportResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_operator.manifests.finetunejob import build_stage_job
from tunewright_operator.manifests.finetunejob_names import rank_zero_host, stage_job_name
from tunewright_operator.manifests.finetunejob_network import build_network_policy, build_service
from tunewright_operator.manifests.registration import build_model_version
from tunewright_operator.manifests.resources import processes_per_node, threads_per_process
from tunewright_operator.manifests.trainer_config import build_config_map, claims_of
from tunewright_operator.policies.acceptance import SecretUse, secrets_of
from tunewright_operator.policies.course import STAGES

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
LLAMA = "finetunejob-llama-3-70b"
# A job like the quickstart's, whose figures may move without moving this file, and the example for two nodes of GPUs.
JOBS = ("finetunejob-two-pods", LLAMA)
DIGEST = "sha256:" + "d" * 64


def load(name: str) -> Object:
    """One of JOBS as the apiserver would store it."""
    if name != LLAMA:
        return build_job()
    obj: Object = yaml.safe_load((ROOT / "examples/llama-3-70b/finetunejob.yaml").read_text())
    obj["metadata"] |= {"uid": "0c5a6e0e-0000-4000-8000-000000000001", "generation": 1}
    return obj


def read(obj: Object) -> FineTuneJobSpec:
    """Its spec, with all defaults."""
    return FineTuneJobSpec.model_validate(obj["spec"])


def all_children(obj: Object) -> list[Object]:
    """Everything that is created for a job without a restart."""
    spec = read(obj)
    stages = [build_stage_job(obj, spec, stage, 1, CONFIG) for stage in STAGES]
    export = ExportResult(digest=DIGEST, size_bytes=1024, kind="Full", chat_template_digest=DIGEST)
    version = build_model_version(obj, spec, export, dataset_digest=DIGEST, image=CONFIG.trainer_image, evaluation=[])
    return [
        build_config_map(obj, spec),
        build_network_policy(obj, CONFIG),
        build_service(obj),
        *stages,
        version,
    ]


def training_pod(obj: Object, attempt: int = 1) -> Object:
    """spec of the training pods."""
    pod: Object = build_stage_job(obj, read(obj), Stage.TRAIN, attempt, CONFIG)["spec"]["template"]["spec"]
    return pod


def environment(pod: Object) -> dict[str, Any]:
    """Environment of the one container."""
    return {env["name"]: env.get("value", env.get("valueFrom")) for env in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", JOBS)
def test_the_children_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    # Through JSON: YAML would write a value that two places share as an anchor.
    text = yaml.safe_dump_all(json.loads(json.dumps(all_children(load(name)))), sort_keys=False)
    if not path.exists():
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: remove it and run again if the change is meant"


@pytest.mark.parametrize("name", JOBS)
def test_every_pod_passes_pod_security_restricted_and_has_no_token(name: str) -> None:
    obj = load(name)
    for stage in STAGES:
        pod = build_stage_job(obj, read(obj), stage, 1, CONFIG)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPath" in volume for volume in pod["volumes"])


CLAIM = {
    "accessModes": ["ReadWriteOnce"],
    "storageClassName": "local-nvme",
    "resources": {"requests": {"storage": "800Gi"}},
}


@pytest.mark.parametrize(
    ("nvme", "volume"),
    [
        pytest.param({"size": "800Gi"}, {"emptyDir": {"sizeLimit": "800Gi"}}, id="the node's own disk"),
        pytest.param(
            {"size": "800Gi", "storageClassName": "local-nvme"},
            {"ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}},
            id="a claim that ends with the pod",
        ),
    ],
)
def test_what_is_offloaded_to_nvme_has_a_disk_in_the_training_pods_alone(nvme: Object, volume: Object) -> None:
    obj = build_job()
    obj["spec"]["distributed"] = {"deepspeed": {"zeroStage": 3, "offloadOptimizer": "NVMe", "nvme": nvme}}
    mounts = {
        stage: [
            (mount["mountPath"], next(v for v in pod["volumes"] if v["name"] == mount["name"]))
            for mount in pod["containers"][0]["volumeMounts"]
            if mount["name"] == "nvme"
        ]
        for stage in STAGES
        for pod in [build_stage_job(obj, read(obj), stage, 1, CONFIG)["spec"]["template"]["spec"]]
    }
    assert mounts.pop(Stage.TRAIN) == [("/mnt/nvme", {"name": "nvme", **volume})]
    assert not any(mounts.values())


def test_the_configuration_file_is_what_the_trainer_reads() -> None:
    obj = build_job()
    config = TrainerConfig.model_validate_json(build_config_map(obj, read(obj))["data"]["config.json"])
    assert config.model.path == "/mnt/claims/data/base-model"
    assert config.dataset.path == "/mnt/claims/data/train.jsonl"
    assert config.directories.work == f"/mnt/claims/data/models/.work/{obj['metadata']['uid']}"
    assert config.directories.artifact == "/mnt/claims/data/models/guide/v1"
    assert (config.rendezvous.nodes, config.rendezvous.processes_per_node) == (2, 1)
    assert config.hyperparameters == read(obj).hyperparameters


def test_the_same_spec_builds_the_same_bytes() -> None:
    assert json.dumps(all_children(load(LLAMA))) == json.dumps(all_children(load(LLAMA)))


def test_the_rendezvous_follows_the_attempt() -> None:
    obj = build_job()
    hosts = [environment(training_pod(obj, attempt))[ENV_RENDEZVOUS_ADDRESS] for attempt in (1, 2)]
    assert hosts == ["guide-train-1-0.guide-train.team.svc", "guide-train-2-0.guide-train.team.svc"]


def test_gpus_ask_for_a_node_of_their_own_and_a_laptop_may_be_one_node() -> None:
    gpus = training_pod(build_job(resourcesPerNode={"nvidia.com/gpu": 8}))["affinity"]["podAntiAffinity"]
    cpus = training_pod(build_job())["affinity"]["podAntiAffinity"]
    assert list(gpus) == ["requiredDuringSchedulingIgnoredDuringExecution"]
    assert list(cpus) == ["preferredDuringSchedulingIgnoredDuringExecution"]
    assert "affinity" not in training_pod(build_job(numNodes=1))


@pytest.mark.parametrize(
    ("stage", "want"),
    [
        (Stage.PREPARE, {"cpu": "96", "memory": "1Ti"}),
        (Stage.TRAIN, {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": 8, "rdma/ib": 8}),
        (Stage.EVALUATE, {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": 1}),
        (Stage.EXPORT, {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": 1}),
    ],
)
def test_only_training_gets_every_device(stage: Stage, want: Object) -> None:
    obj = build_job(resourcesPerNode={"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": 8, "rdma/ib": 8})
    pod = build_stage_job(obj, read(obj), stage, 1, CONFIG)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"requests": want, "limits": want}


def test_errors_of_the_user_end_the_job_and_lost_nodes_do_not_replace_single_training_pods() -> None:
    obj = build_job()
    train = build_stage_job(obj, read(obj), Stage.TRAIN, 1, CONFIG)["spec"]
    export = build_stage_job(obj, read(obj), Stage.EXPORT, 1, CONFIG)["spec"]
    values = train["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert ExitCode.INVALID_DATA in values
    assert ExitCode.PREEMPTED not in values
    assert [rule["action"] for rule in train["podFailurePolicy"]["rules"]] == ["FailJob"]
    assert [rule["action"] for rule in export["podFailurePolicy"]["rules"]] == ["FailJob", "Ignore"]
    assert (train["backoffLimit"], export["backoffLimit"]) == (0, 2)
    assert (train["completions"], train["parallelism"], train["completionMode"]) == (2, 2, "Indexed")


def test_only_prepare_may_reach_the_hub_and_only_with_the_token_of_the_secret() -> None:
    obj = build_job(baseModel={"uri": "hf://org/model", "revision": "main", "secretRef": {"name": "hub"}})
    pods = {stage: build_stage_job(obj, read(obj), stage, 1, CONFIG)["spec"]["template"]["spec"] for stage in STAGES}
    assert environment(pods[Stage.PREPARE])["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}
    assert "HF_HUB_OFFLINE" not in environment(pods[Stage.PREPARE])
    for stage in STAGES[1:]:
        assert "HF_TOKEN" not in environment(pods[stage])
        assert environment(pods[stage])["HF_HUB_OFFLINE"] == "1"


def test_only_the_claim_of_the_output_can_be_written() -> None:
    obj = build_job(baseModel={"uri": "pvc://models/base"}, dataset={"uri": "pvc://sets/a.jsonl", "format": "Chat"})
    mounts = training_pod(obj)["containers"][0]["volumeMounts"]
    writable = {m["mountPath"] for m in mounts if m["mountPath"].startswith("/mnt") and not m["readOnly"]}
    assert writable == {"/mnt/claims/data"}
    assert claims_of(read(obj)) == {"models": "baseModel.uri", "sets": "dataset.uri", "data": "output.uri"}


def test_s3_data_and_mixtures_reach_prepare() -> None:
    parts = [
        {"uri": "s3://data/tasks/a.jsonl.gz", "format": "Chat", "weight": 3},
        {"uri": "pvc://sets/general.parquet", "format": "InputTarget", "weight": 1},
    ]
    obj = build_job(dataset={"mixture": parts, "secretRef": {"name": "s3"}, "onBadRow": "Quarantine"})
    config = TrainerConfig.model_validate_json(build_config_map(obj, read(obj))["data"]["config.json"])
    assert [part.to_dict() for part in config.dataset.sources] == [
        {"path": "s3://data/tasks/a.jsonl.gz", "format": "Chat", "weight": 3},
        {"path": "/mnt/claims/sets/general.parquet", "format": "InputTarget", "weight": 1},
    ]
    assert claims_of(read(obj)) == {"sets": "dataset.mixture[1].uri", "data": "output.uri"}
    assert secrets_of(read(obj)) == [
        SecretUse("s3", "dataset.secretRef", "AWS_ACCESS_KEY_ID"),
        SecretUse("s3", "dataset.secretRef", "AWS_SECRET_ACCESS_KEY"),
    ]
    given = {stage: build_stage_job(obj, read(obj), stage, 1, CONFIG) for stage in STAGES}
    names = {
        stage: [entry["name"] for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]]
        for stage, job in given.items()
    }
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= set(names[Stage.PREPARE])
    assert not any(name.startswith("AWS") for stage in STAGES[1:] for name in names[stage])


def test_what_the_objective_reads_is_mounted_and_passed_on() -> None:
    supervised = {
        "ewc": {"reference": {"uri": "pvc://general/talk.jsonl", "format": "Chat"}},
        "distillation": {"teacher": {"uri": "pvc://zoo/large"}},
    }
    obj = build_job(objective={"supervised": supervised})
    mounts = training_pod(obj)["containers"][0]["volumeMounts"]
    assert {m["mountPath"] for m in mounts if m.get("readOnly")} >= {"/mnt/claims/general", "/mnt/claims/zoo"}
    assert claims_of(read(obj)) == {
        "data": "output.uri",
        "general": "objective.supervised.ewc.reference.uri",
        "zoo": "objective.supervised.distillation.teacher.uri",
    }
    config = json.loads(build_config_map(obj, read(obj))["data"]["config.json"])
    assert config["objectiveInputs"] == {
        "teacher": "/mnt/claims/zoo/large",
        "reference": "/mnt/claims/general/talk.jsonl",
    }
    assert config["objective"]["supervised"]["ewc"]["lambda"] == 1000


def test_what_the_evaluation_reads_is_mounted_and_passed_on() -> None:
    judge = {"url": "http://judge.tools/v1", "model": "m", "rubric": "right", "secretRef": {"name": "judge-key"}}
    obj = build_job(
        evaluation={
            "judge": judge,
            "general": {"uri": "pvc://general/talk.jsonl", "format": "Chat"},
            "harness": {"uri": "pvc://tasks/ours", "tasks": ["sums"]},
        }
    )
    assert claims_of(read(obj)) == {
        "data": "output.uri",
        "general": "evaluation.general.uri",
        "tasks": "evaluation.harness.uri",
    }
    config = json.loads(build_config_map(obj, read(obj))["data"]["config.json"])
    assert config["evaluationInputs"] == {
        "general": "/mnt/claims/general/talk.jsonl",
        "harness": "/mnt/claims/tasks/ours",
    }
    key = {
        "name": "TUNEWRIGHT_JUDGE_KEY",
        "valueFrom": {"secretKeyRef": {"name": "judge-key", "key": "API_KEY"}},
    }
    pods = {stage: build_stage_job(obj, read(obj), stage, 1, CONFIG)["spec"]["template"]["spec"] for stage in STAGES}
    assert [stage for stage, pod in pods.items() if key in pod["containers"][0]["env"]] == [Stage.EVALUATE]


def test_scheduling_is_passed_on_as_written() -> None:
    scheduling = {
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "research",
    }
    pod = training_pod(build_job(scheduling=scheduling))
    assert {key: pod[key] for key in scheduling} == scheduling


@pytest.mark.parametrize("nodes", [1, 2, 1024])
def test_a_long_name_leaves_room_for_the_host_names_of_the_pods(nodes: int) -> None:
    obj = build_job()
    obj["metadata"]["name"] = "a-name-of-sixty-three-characters-which-is-all-that-a-label-holds"[:63]
    first, second = (stage_job_name(obj, Stage.TRAIN, attempt, nodes) for attempt in (1, 2))
    assert len(f"{first}-{nodes - 1}") <= 63
    assert first != second
    assert rank_zero_host(obj, 1, nodes).split(".")[0] == f"{first}-0"


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), (2, "2"), ("1Ki", "1024"), ("2Gi", "2147483648"), ("1.5k", "1500")]
)
def test_quantities_are_read_as_kubernetes_reads_them(text: int | str, number: str) -> None:
    assert parse_quantity(text) == parse_quantity(number)


@pytest.mark.parametrize(
    ("changes", "processes", "threads"),
    [
        ({"resourcesPerNode": {"cpu": "900m"}}, 1, 1),
        ({"resourcesPerNode": {"cpu": 96, "nvidia.com/gpu": 8}}, 8, 12),
        ({"resourcesPerNode": {"cpu": "8"}, "numProcPerNode": 2}, 2, 4),
        ({"resourcesPerNode": {"memory": "1Gi"}}, 1, None),
    ],
)
def test_processes_and_threads_share_the_cpus(changes: Object, processes: int, threads: int | None) -> None:
    spec = read(build_job(**changes))
    assert processes_per_node(spec) == processes
    assert threads_per_process(spec, Stage.TRAIN) == threads


def test_strangers_reach_no_pod_and_the_operator_only_the_progress() -> None:
    policy = build_network_policy(build_job(), CONFIG)["spec"]
    own, operator = policy["ingress"]
    assert policy["policyTypes"] == ["Ingress"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert operator["ports"] == [{"port": 9090}]
    selector = operator["from"][0]["namespaceSelector"]["matchLabels"]
    assert selector == {"kubernetes.io/metadata.name": CONFIG.namespace}
