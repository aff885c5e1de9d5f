"""Jobs of a FineTuneJob: one per stage, and one per training attempt with a pod per node."""

from typing import Any

from tunewright_api.dataset import S3_CREDENTIALS, S3_SETTINGS
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.names import (
    CONFIG_DIR,
    CONFIG_FILE,
    ENV_JUDGE_KEY,
    ENV_RENDEZVOUS_ADDRESS,
    LABEL_KIND,
    LABEL_NAME,
    LABEL_STAGE,
    NVME_MOUNT,
    Stage,
)
from tunewright_api.uris import is_pvc
from tunewright_operator.config import OperatorConfig
from tunewright_operator.manifests.common import (
    child_metadata,
    claim_volumes,
    placement,
    pod_failure_policy,
    restricted_container_security,
    restricted_pod_security,
    scrape_annotations,
    scratch_volumes,
)
from tunewright_operator.manifests.finetunejob_names import (
    config_name,
    network_name,
    rank_zero_host,
    stage_job_name,
    stage_labels,
)
from tunewright_operator.manifests.resources import gpus_per_node, stage_resources, threads_per_process
from tunewright_operator.manifests.trainer_config import claims_of, output_path

Manifest = dict[str, Any]

CONTAINER = "trainer"
RETRIES = 2
# SIGTERM lets a trainer save a checkpoint; this is how long it may take.
CHECKPOINT_SECONDS = 120


def build_stage_job(
    owner: Manifest, spec: FineTuneJobSpec, stage: Stage, attempt: int, config: OperatorConfig
) -> Manifest:
    """The Job of a stage. A lost training pod ends its attempt; the other stages try again by themselves."""
    training = stage is Stage.TRAIN
    labels = stage_labels(owner, stage, attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(owner, stage_job_name(owner, stage, attempt, spec.num_nodes), labels),
        "spec": {
            "suspend": False,
            "backoffLimit": 0 if training else RETRIES,
            "podReplacementPolicy": "Failed",
            # A training pod that is replaced alone finds no peers: the gang ends with it.
            "podFailurePolicy": pod_failure_policy(CONTAINER, ignore_disruption=not training),
            **(_gang(spec) if training else {}),
            "template": {
                "metadata": {
                    "labels": labels,
                    # Rank 0 alone answers: an annotation cannot tell the pods of a Job apart.
                    **({"annotations": scrape_annotations(config.trainer_port)} if training else {}),
                },
                "spec": _pod(owner, spec, stage, attempt, config),
            },
        },
    }


def _gang(spec: FineTuneJobSpec) -> Manifest:
    return {"completionMode": "Indexed", "completions": spec.num_nodes, "parallelism": spec.num_nodes}


def _pod(owner: Manifest, spec: FineTuneJobSpec, stage: Stage, attempt: int, config: OperatorConfig) -> Manifest:
    claims = frozenset(claims_of(spec))
    volumes, mounts = claim_volumes(claims, read_only=claims - {output_path(spec).claim})
    scratch, scratch_mounts = scratch_volumes()
    training = stage is Stage.TRAIN
    disk, disk_mounts = _disk(spec) if training else ([], [])
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": CHECKPOINT_SECONDS if training else 30,
        "securityContext": restricted_pod_security(),
        **({"subdomain": network_name(owner)} if training else {}),
        **placement(spec.scheduling),
        **(_spread(owner, spec) if training and spec.num_nodes > 1 else {}),
        "containers": [
            {
                "name": CONTAINER,
                "image": config.trainer_image,
                "imagePullPolicy": config.image_pull_policy,
                "command": ["tunewright-trainer", stage.value, "--config", f"{CONFIG_DIR}/{CONFIG_FILE}"],
                "env": _environment(owner, spec, stage, attempt),
                "resources": stage_resources(spec, stage),
                "securityContext": restricted_container_security(),
                "terminationMessagePolicy": "File",
                **({"ports": [{"name": "progress", "containerPort": config.trainer_port}]} if training else {}),
                "volumeMounts": [
                    *mounts,
                    *scratch_mounts,
                    *disk_mounts,
                    {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
                ],
            }
        ],
        "volumes": [*volumes, *scratch, *disk, {"name": "config", "configMap": {"name": config_name(owner)}}],
    }


def _disk(spec: FineTuneJobSpec) -> tuple[list[Manifest], list[Manifest]]:
    """(volumes, volumeMounts) of what DeepSpeed offloads to NVMe: a claim of the pod's own, or the node's own disk."""
    deepspeed = spec.distributed.deepspeed if spec.distributed else None
    if deepspeed is None or deepspeed.nvme is None:
        return [], []
    nvme = deepspeed.nvme
    if nvme.storage_class_name is None:
        source: Manifest = {"emptyDir": {"sizeLimit": nvme.size}}
    else:
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": nvme.storage_class_name,
            "resources": {"requests": {"storage": nvme.size}},
        }
        source = {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
    return [{"name": "nvme", **source}], [{"name": "nvme", "mountPath": NVME_MOUNT}]


def _environment(owner: Manifest, spec: FineTuneJobSpec, stage: Stage, attempt: int) -> list[Manifest]:
    env: list[Manifest] = [{"name": "HOME", "value": "/tmp"}]
    downloads = stage is Stage.PREPARE and not is_pvc(spec.base_model.uri)
    if not downloads:
        env.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    elif spec.base_model.secret_ref:
        key = {"name": spec.base_model.secret_ref.name, "key": "HF_TOKEN"}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}})
    if stage is Stage.PREPARE and spec.dataset.secret_ref:
        for name in (*S3_CREDENTIALS, *S3_SETTINGS):
            key = {"name": spec.dataset.secret_ref.name, "key": name}
            optional = {"optional": True} if name in S3_SETTINGS else {}
            env.append({"name": name, "valueFrom": {"secretKeyRef": {**key, **optional}}})
    judge = spec.evaluation.judge
    if stage is Stage.EVALUATE and judge and judge.secret_ref:
        key = {"name": judge.secret_ref.name, "key": "API_KEY"}
        env.append({"name": ENV_JUDGE_KEY, "valueFrom": {"secretKeyRef": key}})
    if threads := threads_per_process(spec, stage):
        env.append({"name": "OMP_NUM_THREADS", "value": str(threads)})
    if stage is Stage.TRAIN:
        env.append({"name": ENV_RENDEZVOUS_ADDRESS, "value": rank_zero_host(owner, attempt, spec.num_nodes)})
    return env


def _spread(owner: Manifest, spec: FineTuneJobSpec) -> Manifest:
    """One pod per node: required where GPUs are asked for, preferred elsewhere (one laptop is one node)."""
    term = {
        "labelSelector": {
            "matchLabels": {
                LABEL_KIND: owner["kind"],
                LABEL_NAME: owner["metadata"]["name"],
                LABEL_STAGE: Stage.TRAIN.value,
            }
        },
        "topologyKey": "kubernetes.io/hostname",
    }
    if gpus_per_node(spec.resources_per_node):
        rule: Manifest = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    else:
        rule = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    return {"affinity": {"podAntiAffinity": rule}}
