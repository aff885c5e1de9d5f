"""The 70B example: valid against the contract, and consistent with itself."""

from pathlib import Path
from typing import Any

import yaml

from tunewright_api import names
from tunewright_api.finetunejob import FineTuneJob
from tunewright_api.inferenceservice import InferenceService
from tunewright_api.uris import parse_pvc

LLAMA = Path(__file__).parents[3] / "examples" / "llama-3-70b"


def _load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LLAMA / name).read_text()))


def test_the_job_is_valid_and_uses_every_gpu_of_both_nodes() -> None:
    (document,) = _load("finetunejob.yaml")
    assert (document["apiVersion"], document["kind"]) == (names.API_VERSION, "FineTuneJob")
    spec = FineTuneJob.model_validate({"spec": document["spec"]}).spec
    assert spec.num_nodes == 2
    assert spec.resources_per_node is not None
    assert spec.resources_per_node["nvidia.com/gpu"] == 8
    assert spec.distributed is not None
    assert spec.distributed.deepspeed is not None
    assert spec.distributed.deepspeed.zero_stage == 3


def test_the_service_serves_the_version_of_the_job_on_as_many_gpus_as_it_shards_over() -> None:
    (job,) = _load("finetunejob.yaml")
    (document,) = _load("inferenceservice.yaml")
    assert (document["apiVersion"], document["kind"]) == (names.API_VERSION, "InferenceService")
    spec = InferenceService.model_validate({"spec": document["spec"]}).spec
    output = job["spec"]["output"]
    assert spec.model.version_ref.name == f"{output['modelName']}-{output['version']}"
    assert spec.resources is not None
    assert spec.engine.tensor_parallel_size == spec.resources["nvidia.com/gpu"] == 8


def test_storage_and_secret_are_the_ones_the_job_refers_to() -> None:
    (job,) = _load("finetunejob.yaml")
    namespace, claim, secret = _load("storage.yaml")
    spec = job["spec"]
    assert {parse_pvc(uri).claim for uri in (spec["dataset"]["uri"], spec["output"]["uri"])} == {
        claim["metadata"]["name"]
    }
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert spec["baseModel"]["secretRef"]["name"] == secret["metadata"]["name"]
    assert set(secret["stringData"]) == {"HF_TOKEN"}
    assert {document["metadata"]["namespace"] for document in (job, claim, secret)} == {namespace["metadata"]["name"]}
