"""The apiserver itself refuses wrong documents, with a message that names the field and the remedy."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.rest import ApiError
from e2e.cluster.wait import wait_for

Object = dict[str, Any]
Change = Callable[[Object], object]

ROOT = Path(__file__).resolve().parents[2]
GROUP = "/apis/tunewright.io/v1alpha1/namespaces/default"
DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64


def job() -> Object:
    """A valid FineTuneJob that sets nearly every field."""
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "guide", "namespace": "default"},
        "spec": {
            "baseModel": {"uri": "pvc://data/base-model"},
            "dataset": {"uri": "pvc://data/train.jsonl", "format": "Alpaca", "validationPercent": 10},
            "method": {"lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "targetModules": ["q_proj"]}},
            "hyperparameters": {"epochs": 2, "learningRate": 0.001},
            "distributed": {"deepspeed": {"zeroStage": 2}},
            "numNodes": 2,
            "resourcesPerNode": {"cpu": "900m", "memory": "4Gi"},
            "checkpoint": {"everySteps": 50},
            "evaluation": {"gates": [{"metric": "Loss", "max": 1.5}]},
            "output": {"uri": "pvc://data/models", "modelName": "guide", "version": "v1"},
        },
    }


def version() -> Object:
    """A valid ModelVersion."""
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": "guide-v1", "namespace": "default"},
        "spec": {
            "modelName": "guide",
            "version": "v1",
            "kind": "Full",
            "artifact": {
                "uri": "pvc://data/models/guide/v1",
                "digest": DIGEST,
                "format": "Safetensors",
                "sizeBytes": 10,
            },
            "baseModel": {"uri": "pvc://data/base-model"},
            "evaluation": [{"metric": "Loss", "base": 4.0, "tuned": 1.0}],
        },
    }


def service() -> Object:
    """A valid InferenceService."""
    return {
        "apiVersion": "tunewright.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "guide", "namespace": "default"},
        "spec": {
            "model": {"versionRef": {"name": "guide-v1"}},
            "engine": {"maxModelLen": 512},
            "replicas": 1,
            "resources": {"cpu": "1500m", "memory": "6Gi"},
        },
    }


PLURAL = {"FineTuneJob": "finetunejobs", "ModelVersion": "modelversions", "InferenceService": "inferenceservices"}


def put(path: str, value: object) -> Change:
    """Set the field at a dotted path, making objects on the way."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for name in parents:
            document = document.setdefault(name, {})
        document[last] = value

    return change


def drop(path: str) -> Change:
    """Remove the field at a dotted path."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for name in parents:
            document = document[name]
        del document[last]

    return change


def both(*changes: Change) -> Change:
    """Several changes at once."""
    return lambda document: [change(document) for change in changes]


EWC = {"supervised": {"ewc": {"reference": {"uri": "pvc://data/general.jsonl", "format": "Chat"}}}}
EXACT = {"name": "hello", "prompt": "Hello", "exact": "Hi"}
RUBRIC = {"name": "hello", "prompt": "Hello", "rubric": "it greets"}
TEXTS = {"uri": "pvc://data/texts", "format": "Text", "weight": 1}
UPSIDE_DOWN = {"name": "TTFTP95", "thresholdRange": {"min": 2, "max": 1}}

WRONG: list[tuple[str, Callable[[], Object], Change, tuple[str, ...]]] = [
    ("no base model", job, drop("spec.baseModel"), ("spec.baseModel", "Required value")),
    ("a bucket as base model", job, put("spec.baseModel.uri", "s3://b/m"), ("spec.baseModel.uri", "pvc://", "hf://")),
    ("a path that climbs out", job, put("spec.dataset.uri", "pvc://data/../etc"), ("spec.dataset.uri", "pvc://")),
    ("a web address as dataset", job, put("spec.dataset.uri", "https://x/y"), ("spec.dataset.uri", "pvc://")),
    (
        "an unknown format",
        job,
        put("spec.dataset.format", "Parquet"),
        ("spec.dataset.format", '"Alpaca", "Chat", "PromptCompletion"'),
    ),
    (
        "conversations that are to be divided",
        job,
        put("spec.dataset.onLongRecord", "Split"),
        ("dataset.onLongRecord: Split divides documents, so it needs the format Text: write Truncate",),
    ),
    (
        "a mixture of documents and conversations that is to be divided",
        job,
        put("spec.dataset", {"mixture": [TEXTS, {**TEXTS, "format": "Chat"}], "onLongRecord": "Split"}),
        ("dataset.onLongRecord: Split divides documents",),
    ),
    ("nothing held out", job, put("spec.dataset.validationPercent", 0), ("validationPercent", "greater than or equal")),
    ("too much held out", job, put("spec.dataset.validationPercent", 90), ("validationPercent", "less than or equal")),
    (
        "two methods",
        job,
        put("spec.method.full", {}),
        ("spec.method", "exactly one of `full: {}`, `lora: {…}`, `qlora: {…}`"),
    ),
    ("no method", job, put("spec.method", {}), ("spec.method", "exactly one of")),
    ("a token for a claim", job, put("spec.baseModel.secretRef", {"name": "hub"}), ("secretRef", "remove it")),
    ("a revision for a claim", job, put("spec.baseModel.revision", "main"), ("revision", "remove it")),
    ("rank 0", job, put("spec.method.lora.rank", 0), ("spec.method.lora.rank", "greater than or equal to 1")),
    ("dropout 1", job, put("spec.method.lora.dropout", 1), ("spec.method.lora.dropout", "less than 1")),
    ("no target module", job, put("spec.method.lora.targetModules", []), ("targetModules", "at least 1 items")),
    (
        "a target module twice",
        job,
        put("spec.method.lora.targetModules", ["q_proj", "q_proj"]),
        ("targetModules", "Duplicate value"),
    ),
    ("epochs and steps", job, put("spec.hyperparameters.maxSteps", 9), ("hyperparameters", "epochs or maxSteps")),
    ("learning rate 0", job, put("spec.hyperparameters.learningRate", 0), ("learningRate", "greater than 0")),
    ("a learning rate in words", job, put("spec.hyperparameters.learningRate", "1e-4"), ("learningRate", "number")),
    ("an unknown schedule", job, put("spec.hyperparameters.scheduler", "cosine"), ("scheduler", '"Cosine"')),
    (
        "precision of another age",
        job,
        put("spec.hyperparameters.precision", "FP64"),
        ("precision", '"BF16", "FP16", "FP32", "FP8"'),
    ),
    ("ZeRO-4", job, put("spec.distributed.deepspeed.zeroStage", 4), ("zeroStage", '"0", "1", "2", "3"')),
    (
        "two parallelisms",
        job,
        put("spec.distributed.ddp", {}),
        ("spec.distributed", "exactly one of `ddp: {}`", "`pipeline: {stages: 2}`"),
    ),
    (
        "weights that no stage shards, moved away",
        job,
        put("spec.distributed.deepspeed.offloadParameters", "CPU"),
        ("offloadParameters", "set zeroStage to 3"),
    ),
    (
        "NVMe without a disk",
        job,
        put("spec.distributed.deepspeed", {"zeroStage": 3, "offloadOptimizer": "NVMe"}),
        ("deepspeed.nvme: {size", "only then"),
    ),
    (
        "three stages for two processes",
        job,
        both(
            put("spec.distributed", {"pipeline": {"stages": 3}}),
            put("spec.hyperparameters.gradientAccumulationSteps", 8),
        ),
        ("distributed.pipeline.stages must divide the number of processes",),
    ),
    (
        "fewer micro batches than stages",
        job,
        put("spec.distributed", {"pipeline": {"stages": 2}}),
        ("set hyperparameters.gradientAccumulationSteps",),
    ),
    (
        "supervised learning and preferences at once",
        job,
        put("spec.objective", {"supervised": {}, "dpo": {}}),
        ("write supervised or dpo, not both",),
    ),
    (
        "preferences without pairs",
        job,
        put("spec.objective", {"dpo": {}}),
        ("write `objective: {dpo: {}}` with dataset.format Preference",),
    ),
    (
        "pairs without preferences",
        job,
        put("spec.dataset.format", "Preference"),
        ("write `objective: {dpo: {}}` with dataset.format Preference",),
    ),
    (
        "EWC on what is beside the base",
        job,
        both(put("spec.method", {"prefixTuning": {}}), put("spec.objective", EWC)),
        ("use it with method.full, or with lora or qlora",),
    ),
    (
        "EWC on divided weights",
        job,
        both(put("spec.distributed", {"fsdp": {}}), put("spec.objective", EWC)),
        ("objective.supervised.ewc needs whole weights in every process",),
    ),
    (
        "preferences through a pipeline",
        job,
        both(
            put("spec.distributed", {"pipeline": {"stages": 2}}),
            put("spec.hyperparameters.gradientAccumulationSteps", 2),
            put("spec.objective", {"dpo": {}}),
        ),
        ("distributed.pipeline gives only its last stage what dpo",),
    ),
    (
        "FP16 with FSDP2",
        job,
        both(put("spec.distributed", {"fsdp": {}}), put("spec.hyperparameters.precision", "FP16")),
        ("distributed.fsdp and distributed.pipeline compute in BF16 or FP32",),
    ),
    (
        "FP16 with DeepSpeed without ZeRO",
        job,
        both(put("spec.distributed.deepspeed.zeroStage", 0), put("spec.hyperparameters.precision", "FP16")),
        ("zeroStage 0 does not scale the loss", "use distributed.ddp, or zeroStage 1"),
    ),
    ("two nodes that do not share", job, drop("spec.distributed"), ("spec", "deepspeed: {zeroStage: 0..3}")),
    (
        "eight GPUs in one process",
        job,
        both(
            drop("spec.distributed"),
            put("spec.numNodes", 1),
            put("spec.resourcesPerNode", {"nvidia.com/gpu": 8}),
        ),
        ("several GPUs per node", "deepspeed"),
    ),
    ("no node", job, put("spec.numNodes", 0), ("spec.numNodes", "greater than or equal to 1")),
    ("a quantity in words", job, put("spec.resourcesPerNode.memory", "much"), ("resourcesPerNode.memory", "Ki|Mi|Gi")),
    ("checkpoints never", job, put("spec.checkpoint.everySteps", 0), ("checkpoint.everySteps", "greater than")),
    (
        "a gate with two bounds",
        job,
        put("spec.evaluation.gates", [{"metric": "Loss", "min": 1, "max": 2}]),
        ("gates[0]", "exactly one of min and max"),
    ),
    (
        "a gate without a bound",
        job,
        put("spec.evaluation.gates", [{"metric": "Loss"}]),
        ("gates[0]", "exactly one of min and max"),
    ),
    (
        "two gates on one metric",
        job,
        put("spec.evaluation.gates", [{"metric": "Loss", "max": 1}, {"metric": "Loss", "max": 2}]),
        ("gates[1]", "Duplicate value"),
    ),
    ("an unknown metric", job, put("spec.evaluation.gates", [{"metric": "Meteor", "min": 1}]), ("metric", '"RougeL"')),
    (
        "a gate on the judge's score without a judge",
        job,
        put("spec.evaluation.gates", [{"metric": "JudgeScore", "min": 4}]),
        ("evaluation.judge", "JudgeScore", "add it"),
    ),
    (
        "forgetting without a general set",
        job,
        put("spec.evaluation.metrics", ["Loss", "ForgettingLoss"]),
        ("evaluation.general", "GeneralLoss and no ForgettingLoss"),
    ),
    (
        "a harness score without tasks",
        job,
        put("spec.evaluation.metrics", ["HarnessScore"]),
        ("evaluation.harness", "HarnessScore"),
    ),
    (
        "a judge with a password in its address",
        job,
        put("spec.evaluation.judge", {"url": "http://me:secret@judge/v1", "model": "m", "rubric": "right"}),
        ("evaluation.judge.url", "secretRef"),
    ),
    (
        "an adapter of a full training",
        job,
        both(put("spec.method", {"full": {}}), put("spec.export", {"merge": False})),
        ("export.merge: false", "use lora"),
    ),
    (
        "a prefix that is to be merged",
        job,
        put("spec.method", {"prefixTuning": {}}),
        ("vLLM does not serve them: write `export: {merge: false}`",),
    ),
    (
        "a LLaMA-Adapter that is to be merged",
        job,
        put("spec.method", {"adapter": {}}),
        ("vLLM does not serve them: write `export: {merge: false}`",),
    ),
    (
        "4 bits that are divided",
        job,
        both(put("spec.method", {"qlora": {}}), put("spec.distributed", {"deepspeed": {"zeroStage": 3}})),
        ("method.qlora keeps the whole base", "zeroStage 0 to 2"),
    ),
    (
        "a prefix that is recomputed",
        job,
        both(
            put("spec.method", {"prefixTuning": {}}),
            put("spec.export", {"merge": False}),
            put("spec.hyperparameters.gradientCheckpointing", True),
        ),
        ("method.prefixTuning", "set gradientCheckpointing to false"),
    ),
    (
        "a prefix before several records",
        job,
        both(
            put("spec.method", {"prefixTuning": {}}),
            put("spec.export", {"merge": False}),
            put("spec.hyperparameters.packing", True),
        ),
        ("hyperparameters.packing", "method.prefixTuning, method.adapter and objective.dpo cannot do"),
    ),
    (
        "an adapter before several records",
        job,
        both(
            put("spec.method", {"adapter": {}}),
            put("spec.export", {"merge": False}),
            put("spec.hyperparameters.packing", True),
        ),
        ("hyperparameters.packing", "method.prefixTuning, method.adapter and objective.dpo cannot do"),
    ),
    (
        "a row of one record",
        job,
        put("spec.hyperparameters.packing", True),
        ("set microBatchSize to the number of records that shall share it, 2 or more, or packing to false",),
    ),
    (
        "pairs in one row",
        job,
        both(
            put("spec.dataset.format", "Preference"),
            put("spec.objective", {"dpo": {}}),
            put("spec.hyperparameters.packing", True),
        ),
        ("hyperparameters.packing", "method.prefixTuning, method.adapter and objective.dpo cannot do"),
    ),
    (
        "8-bit moments that are divided",
        job,
        put("spec.hyperparameters.optimizer", "AdamW8bit"),
        ("the 8-bit optimizers quantise whole tensors", "use AdamW with them"),
    ),
    (
        "8-bit products of a frozen base",
        job,
        put("spec.hyperparameters.precision", "FP8"),
        ("FP8 is for method.full", "use BF16"),
    ),
    (
        "compiled under DeepSpeed",
        job,
        put("spec.hyperparameters.torchCompile", True),
        ("torchCompile works with one process", "set it to false"),
    ),
    (
        "stopping early without looking",
        job,
        put("spec.hyperparameters.earlyStopping", {"patience": 2}),
        ("hyperparameters.earlyStopping looks at the loss", "evaluation.everySteps"),
    ),
    (
        "an adapter that is pruned",
        job,
        put("spec.export", {"merge": False, "pruning": {"sparsity": 0.5}}),
        ("export.pruning prunes a whole model", "set export.merge to true"),
    ),
    ("all weights pruned", job, put("spec.export", {"pruning": {"sparsity": 1}}), ("sparsity", "less than or equal")),
    (
        "a version that is whole and an adapter",
        version,
        put("spec.adapterType", "Lora"),
        ("adapterType describes a version of kind Adapter",),
    ),
    ("a shard size without unit", job, put("spec.export", {"maxShardSize": "5"}), ("export.maxShardSize", "MB|GB")),
    ("an output on the hub", job, put("spec.output.uri", "hf://org/name"), ("spec.output.uri", "pvc://")),
    ("a model name with capitals", job, put("spec.output.modelName", "Guide"), ("spec.output.modelName", "a-z")),
    ("a job name of 41 letters", job, put("metadata.name", "g" * 41), ("metadata.name", "at most 40 characters")),
    ("a job with a dot", job, put("metadata.name", "guide.v1"), ("metadata.name", "such as guide-v1-0 for guide.v1.0")),
    ("a job that starts with a digit", job, put("metadata.name", "7b"), ("metadata.name", "start with a letter")),
    ("a service with a dot", service, put("metadata.name", "guide.v1"), ("metadata.name", "such as guide-v1-0")),
    (
        "a service that starts with a digit",
        service,
        put("metadata.name", "7b"),
        ("metadata.name", "start with a letter"),
    ),
    ("two dots in a version", job, put("spec.output.version", "1..0"), ("spec.output.version", "a-z0-9")),
    ("a version that ends with a dash", job, put("spec.output.version", "1.0-"), ("spec.output.version", "a-z0-9")),
    ("a field that does not exist", job, put("spec.learningRate", 1), ('unknown field "spec.learningRate"',)),
    ("a version under another name", version, put("metadata.name", "guide"), ("metadata.name", "spec.modelName + '-'")),
    ("a digest that is none", version, put("spec.artifact.digest", "v1"), ("spec.artifact.digest", "sha256:")),
    ("an unknown layout", version, put("spec.artifact.format", "GGUF"), ("artifact.format", '"Safetensors"')),
    (
        "an approval of something else",
        version,
        put("spec.approval", {"decision": "Approved", "approvedBy": "o", "digest": OTHER_DIGEST}),
        ("approval.digest must be spec.artifact.digest",),
    ),
    (
        "an undecided approval",
        version,
        put("spec.approval", {"decision": "Maybe", "approvedBy": "o", "digest": DIGEST}),
        ("approval.decision", '"Approved", "Rejected"'),
    ),
    ("a service without version", service, drop("spec.model.versionRef"), ("exactly one of versionRef and alias",)),
    ("a version that is no name", service, put("spec.model.versionRef.name", "Guide v1"), ("versionRef.name", "a-z")),
    ("more memory than there is", service, put("spec.engine.gpuMemoryUtilization", 1.1), ("gpuMemoryUtilization",)),
    (
        "tensor parallel without GPUs",
        service,
        put("spec.engine.tensorParallelSize", 2),
        ("engine.pipelineParallelSize must equal resources['nvidia.com/gpu']",),
    ),
    (
        "a CPU cache on GPUs",
        service,
        both(put("spec.engine.cpuKVCacheGiB", 2), put("spec.resources", {"nvidia.com/gpu": 1})),
        ("engine.cpuKVCacheGiB", "remove it"),
    ),
    (
        "GPUs that the engine does not use",
        service,
        put("spec.resources", {"nvidia.com/gpu": 8}),
        ("engine.pipelineParallelSize must equal resources['nvidia.com/gpu']",),
    ),
    (
        "fewer GPUs than the engine uses",
        service,
        both(put("spec.engine.tensorParallelSize", 4), put("spec.resources", {"nvidia.com/gpu": "2"})),
        ("engine.pipelineParallelSize must equal resources['nvidia.com/gpu']",),
    ),
    (
        "a GPU with a decimal point",
        service,
        put("spec.resources", {"nvidia.com/gpu": "1.0"}),
        ("resources['nvidia.com/gpu'] must be a whole number",),
    ),
    (
        "a thousand GPUs in short",
        job,
        put("spec.resourcesPerNode", {"nvidia.com/gpu": "1k"}),
        ("resourcesPerNode['nvidia.com/gpu'] must be a whole number",),
    ),
    ("minus one replica", service, put("spec.replicas", -1), ("spec.replicas", "greater than or equal to 0")),
    ("an unknown dtype", service, put("spec.engine.dtype", "int8"), ("engine.dtype", '"BFloat16"')),
    (
        "a version and an alias",
        service,
        put("spec.model.alias", {"modelName": "guide", "name": "production"}),
        ("exactly one of versionRef and alias",),
    ),
    (
        "FP8 without a GPU",
        service,
        put("spec.engine.quantization", "FP8"),
        ("needs a GPU: set resources['nvidia.com/gpu']",),
    ),
    (
        "answers longer than the context",
        service,
        both(put("spec.engine.maxModelLen", 512), put("spec.sampling", {"maxTokens": 512})),
        ("sampling.maxTokens must be less than engine.maxModelLen",),
    ),
    ("an interval without a unit", service, put("spec.rollout.interval", "60"), ("rollout.interval", "smh")),
    (
        "steps and a step weight",
        service,
        put("spec.rollout", {"strategy": "Canary", "steps": [5, 20], "stepWeight": 5}),
        ("write either steps, or stepWeight and maxWeight",),
    ),
    (
        "steps that go down",
        service,
        put("spec.rollout", {"strategy": "Canary", "steps": [20, 5]}),
        ("from the smallest to the largest",),
    ),
    (
        "a step beyond the largest weight",
        service,
        put("spec.rollout", {"strategy": "Canary", "stepWeight": 60, "maxWeight": 50}),
        ("stepWeight must not exceed maxWeight",),
    ),
    ("steps of a BlueGreen", service, put("spec.rollout", {"steps": [5, 20]}), ("are for strategy Canary",)),
    (
        "a judged Recreate",
        service,
        put("spec.rollout", {"strategy": "Recreate", "metrics": [{"name": "ErrorRate", "tolerancePercent": 1}]}),
        ("need two revisions side by side",),
    ),
    (
        "a measured BlueGreen without requests",
        service,
        put("spec.rollout.metrics", [{"name": "ErrorRate", "tolerancePercent": 1}]),
        ("with strategy BlueGreen need mirror: true",),
    ),
    (
        "a metric without a limit",
        service,
        put("spec.rollout", {"strategy": "Canary", "metrics": [{"name": "ErrorRate"}]}),
        ("write thresholdRange", "tolerancePercent"),
    ),
    (
        "a range without room",
        service,
        put("spec.rollout", {"strategy": "Canary", "metrics": [UPSIDE_DOWN]}),
        ("min must not exceed max",),
    ),
    (
        "answers that nobody waits for",
        service,
        put("spec.rollout.probes", {"prompts": [EXACT], "timeout": "2h"}),
        ("probes.timeout must be at most 5m",),
    ),
    (
        "the operator itself as a judge",
        service,
        put("spec.rollout.probes", {"prompts": [RUBRIC], "judge": {"url": "http://127.0.0.1:8080", "model": "j"}}),
        ("judge.url must name a host other than the operator's own",),
    ),
    (
        "a judge with a password",
        service,
        put("spec.rollout.probes", {"prompts": [RUBRIC], "judge": {"url": "http://u:p@judge/v1", "model": "j"}}),
        ("use secretRef",),
    ),
    (
        "an unknown metric",
        service,
        put("spec.rollout", {"strategy": "Canary", "metrics": [{"name": "Latency", "tolerancePercent": 1}]}),
        ("metrics[0].name", '"TTFTP95"'),
    ),
    (
        "a probe that expects two things",
        service,
        put("spec.rollout.probes.prompts", [{"name": "a", "prompt": "Hello", "exact": "Hi", "regex": "Hi"}]),
        ("exactly one of exact, regex and rubric",),
    ),
    (
        "a probe with a broken expression",
        service,
        put("spec.rollout.probes.prompts", [{"name": "a", "prompt": "Hello", "regex": "(Hi"}]),
        ("missing closing )",),
    ),
    (
        "a rubric without a judge",
        service,
        put("spec.rollout.probes.prompts", [{"name": "a", "prompt": "Hello", "rubric": "polite"}]),
        ("probes.judge and a prompt with a rubric need each other",),
    ),
    ("copies without a mesh", service, put("spec.rollout.mirror", True), ("mirror needs traffic.provider Istio",)),
    (
        "a Gateway API without a gateway",
        service,
        put("spec.traffic.provider", "GatewayAPI"),
        ("name the Gateway that routes to this service",),
    ),
    ("mutual TLS without a mesh", service, put("spec.traffic.mtls", "Strict"), ("need traffic.provider Istio",)),
    (
        "a host without a gateway",
        service,
        put("spec.traffic", {"provider": "Istio", "hosts": ["guide.example.com"]}),
        ("name in traffic.gateways the gateways",),
    ),
    (
        "access for nobody",
        service,
        put("spec.traffic", {"provider": "Istio", "access": {}}),
        ("name at least one entry of namespaces or principals",),
    ),
    ("one alias twice", version, put("spec.aliases", ["production", "production"]), ("aliases", "Duplicate")),
]

IMMUTABLE: list[tuple[str, Callable[[], Object], Change, tuple[str, ...]]] = [
    (
        "another dataset",
        job,
        put("spec.dataset.uri", "pvc://data/other.jsonl"),
        ("dataset is immutable", "commit a FineTuneJob with a new name"),
    ),
    ("a field taken away", job, drop("spec.distributed"), ("immutable", "new name")),
    ("a field added", job, put("spec.scheduling", {"priorityClassName": "high"}), ("scheduling is immutable",)),
    (
        "another artifact",
        version,
        put("spec.artifact.digest", OTHER_DIGEST),
        ("artifact is immutable", "register a ModelVersion with a new version"),
    ),
]

MUTABLE: list[tuple[str, Callable[[], Object], Change]] = [
    ("suspend a job", job, put("spec.suspend", True)),
    ("set a deadline", job, put("spec.activeDeadlineSeconds", 60)),
    ("set a time to live", job, put("spec.ttlSecondsAfterFinished", 60)),
    (
        "approve a version",
        version,
        put("spec.approval", {"decision": "Approved", "approvedBy": "o", "digest": DIGEST}),
    ),
    ("move an alias", version, put("spec.aliases", ["production"])),
    ("move a service", service, put("spec.model.versionRef.name", "guide-v2")),
    ("change how a service rolls out", service, put("spec.rollout.threshold", 3)),
    ("scale a service", service, put("spec.replicas", 3)),
]


@pytest.fixture(scope="module")
def contract(apiserver: ControlPlane) -> ControlPlane:
    """An apiserver that serves our three kinds."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        apiserver.kubectl("apply", "--server-side", "-f", str(path))
        served = f"{GROUP}/{crd['spec']['names']['plural']}"
        wait_for(f"{served} there", lambda served=served: apiserver.exists(served), 30)
    return apiserver


def create(plane: ControlPlane, document: Object, *, dry_run: bool = True) -> Object:
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return plane.api.create(f"{GROUP}/{PLURAL[document['kind']]}{query}", document)


def path_of(document: Object) -> str:
    return f"{GROUP}/{PLURAL[document['kind']]}/{document['metadata']['name']}"


def replace(plane: ControlPlane, document: Object) -> Object:
    return plane.api.request("PUT", f"{path_of(document)}?fieldValidation=Strict&dryRun=All", document)


@contextlib.contextmanager
def stored(plane: ControlPlane, document: Object) -> Iterator[Object]:
    """The document as the apiserver stores it, removed at the end."""
    yield create(plane, document, dry_run=False)
    plane.api.delete(path_of(document))


@pytest.mark.parametrize(("make", "change", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_the_apiserver_refuses(contract: ControlPlane, make: Any, change: Change, words: tuple[str, ...]) -> None:
    document = make()
    change(document)
    with pytest.raises(ApiError) as refusal:
        create(contract, document)
    missing = [word for word in words if word not in str(refusal.value)]
    assert not missing, f"{missing} not in: {refusal.value}"


RIGHT: list[tuple[str, Callable[[], Object], Change]] = [
    ("a GPU as text", service, put("spec.resources", {"nvidia.com/gpu": "1"})),
    (
        "as many GPUs as the engine uses",
        service,
        both(put("spec.engine.tensorParallelSize", 8), put("spec.resources", {"nvidia.com/gpu": 8})),
    ),
    (
        "a pipeline over the GPUs of two nodes",
        job,
        both(
            put("spec.distributed", {"pipeline": {"stages": 16}}),
            put("spec.hyperparameters.gradientAccumulationSteps", 32),
            put("spec.resourcesPerNode", {"nvidia.com/gpu": 8}),
        ),
    ),
    (
        "everything on NVMe",
        job,
        put(
            "spec.distributed.deepspeed",
            {"zeroStage": 3, "offloadOptimizer": "NVMe", "offloadParameters": "NVMe", "nvme": {"size": "1Ti"}},
        ),
    ),
    ("EWC with LoRA", job, put("spec.objective", EWC)),
    ("pairs and preferences", job, both(put("spec.dataset.format", "Preference"), put("spec.objective", {"dpo": {}}))),
    (
        "documents that are divided",
        job,
        both(put("spec.dataset.format", "Text"), put("spec.dataset.onLongRecord", "Split")),
    ),
    (
        "two sets of documents that are divided",
        job,
        put("spec.dataset", {"mixture": [TEXTS, TEXTS], "onLongRecord": "Split"}),
    ),
    ("FSDP2 with all defaults", job, put("spec.distributed", {"fsdp": {}})),
    ("a job that makes version 1.0", job, put("spec.output.version", "1.0")),
    (
        "version 1.0",
        version,
        both(
            put("metadata.name", "guide-1.0"),
            put("spec.version", "1.0"),
            put("spec.lineage", {"jobRef": {"name": "guide.v1", "uid": "u"}}),
        ),
    ),
    ("a service of version 1.0", service, put("spec.model.versionRef.name", "guide-1.0")),
    ("no GPU, in figures", service, put("spec.resources", {"nvidia.com/gpu": 0})),
    ("eight GPUs per node", job, put("spec.resourcesPerNode", {"nvidia.com/gpu": "8"})),
]


@pytest.mark.parametrize(("make", "change"), [r[1:] for r in RIGHT], ids=[r[0] for r in RIGHT])
def test_the_apiserver_accepts(contract: ControlPlane, make: Any, change: Change) -> None:
    document = make()
    change(document)
    assert create(contract, document)["metadata"]["name"] == document["metadata"]["name"]


@pytest.mark.parametrize("make", [job, version, service])
def test_the_apiserver_accepts_and_fills_in_defaults(contract: ControlPlane, make: Any) -> None:
    stored = create(contract, make())
    assert stored["status"] == {"observedGeneration": -1}


def test_defaults_of_a_minimal_job(contract: ControlPlane) -> None:
    document = job()
    document["spec"] = {key: document["spec"][key] for key in ("baseModel", "dataset", "output")}
    document["spec"]["method"] = {"lora": {}}
    spec = create(contract, document)["spec"]
    assert spec["method"]["lora"] == {"rank": 16, "alpha": 32, "dropout": 0.0, "useDora": False, "useRslora": False}
    assert spec["hyperparameters"]["learningRate"] == 0.0002
    assert (spec["numNodes"], spec["suspend"], spec["restartPolicy"]) == (1, False, {"maxRestarts": 3})


@pytest.mark.parametrize(("make", "change", "words"), [w[1:] for w in IMMUTABLE], ids=[w[0] for w in IMMUTABLE])
def test_a_run_and_a_record_never_change(
    contract: ControlPlane, make: Any, change: Change, words: tuple[str, ...]
) -> None:
    with stored(contract, make()) as document:
        change(document)
        with pytest.raises(ApiError) as refusal:
            replace(contract, document)
        assert [word for word in words if word not in str(refusal.value)] == []


@pytest.mark.parametrize(("make", "change"), [m[1:] for m in MUTABLE], ids=[m[0] for m in MUTABLE])
def test_what_may_change(contract: ControlPlane, make: Any, change: Change) -> None:
    with stored(contract, make()) as document:
        change(document)
        assert replace(contract, document)["spec"] == document["spec"]
