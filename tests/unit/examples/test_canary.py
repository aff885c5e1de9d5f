"""The canary example: valid objects that go on from the quickstart, on a node of two cores."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewright_api import names
from tunewright_api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunewright_api.inferenceservice import InferenceService, InferenceServiceSpec
from tunewright_api.modelversion import Approval, ModelVersionSpec
from tunewright_operator.config import OperatorConfig
from tunewright_operator.manifests.server import build_revision

EXAMPLES = Path(__file__).parents[3] / "examples"
CANARY, QUICKSTART = EXAMPLES / "canary", EXAMPLES / "quickstart"
CONFIG = OperatorConfig(trainer_image="trainer:test", server_image="server:test")


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _service(path: Path) -> InferenceServiceSpec:
    return InferenceService.model_validate({"spec": _load(path)["spec"]}).spec


def _job(path: Path) -> FineTuneJobSpec:
    return FineTuneJob.model_validate({"spec": _load(path)["spec"]}).spec


@pytest.fixture(scope="module")
def service() -> InferenceServiceSpec:
    return _service(CANARY / "inferenceservice.yaml")


@pytest.fixture(scope="module")
def first() -> FineTuneJobSpec:
    return _job(QUICKSTART / "02-finetunejob.yaml")


def test_applying_it_to_the_running_quickstart_starts_no_rollout(service: InferenceServiceSpec) -> None:
    version = ModelVersionSpec.model_validate(
        {
            "modelName": "guide",
            "version": "v1",
            "kind": "Full",
            "artifact": {
                "uri": "pvc://quickstart/models/guide/v1",
                "digest": "sha256:" + "a" * 64,
                "format": "Safetensors",
                "sizeBytes": 1,
            },
            "baseModel": {"uri": "pvc://quickstart/base-model"},
        }
    )
    before = build_revision("guide-v1", version, _service(QUICKSTART / "04-inferenceservice.yaml"), CONFIG)
    assert build_revision("guide-v1", version, service, CONFIG) == before


def test_the_probes_are_the_questions_of_the_quickstart(service: InferenceServiceSpec) -> None:
    questions = _load(QUICKSTART / "questions.yaml")
    assert service.rollout.probes is not None
    prompts = [(probe.prompt, probe.exact) for probe in service.rollout.probes.prompts]
    assert prompts == [(question["prompt"], question["answer"]) for question in questions]


def test_two_revisions_or_one_and_a_training_pod_fit_on_two_cores_beside_the_operator(
    service: InferenceServiceSpec,
) -> None:
    chart = _load(EXAMPLES.parent / "charts" / "tunewright" / "values.yaml")
    operator = _millicores(chart["operator"]["resources"]["requests"]["cpu"])
    assert service.resources is not None
    server = _millicores(service.resources["cpu"])
    assert 2 * server + operator <= 2000
    for name in ("finetunejob-v2.yaml", "finetunejob-v3.yaml"):
        resources = _job(CANARY / name).resources_per_node
        assert resources is not None
        assert server + _millicores(resources["cpu"]) + operator <= 2000, name


def _millicores(quantity: Any) -> int:
    assert str(quantity).endswith("m")
    return int(quantity[:-1])


def test_version_2_goes_on_from_version_1_and_is_measured_on_the_same_records(first: FineTuneJobSpec) -> None:
    second = _job(CANARY / "finetunejob-v2.yaml")
    assert second.base_model.uri == f"{first.output.uri}/{first.output.model_name}/{first.output.version}/model"
    assert (second.dataset, second.hyperparameters.seed) == (first.dataset, first.hyperparameters.seed)
    assert second.evaluation.sample_prompts == first.evaluation.sample_prompts


def test_the_versions_follow_each_other(service: InferenceServiceSpec, first: FineTuneJobSpec) -> None:
    outputs = [first.output, *(_job(CANARY / f"finetunejob-v{n}.yaml").output for n in (2, 3))]
    assert service.model.alias is not None
    assert {output.model_name for output in outputs} == {service.model.alias.model_name}
    assert [output.version for output in outputs] == ["v1", "v2", "v3"]


def test_version_3_learns_nothing_and_no_gate_says_so() -> None:
    third = _job(CANARY / "finetunejob-v3.yaml")
    assert (third.hyperparameters.max_steps, third.evaluation.gates) == (1, None)


def test_the_approval_says_nothing_but_the_approval() -> None:
    document = _load(CANARY / "approval.yaml")
    assert (document["kind"], document["metadata"]["name"]) == ("ModelVersion", "${VERSION}")
    assert document["spec"].keys() == {"approval"}
    Approval.model_validate(document["spec"]["approval"] | {"digest": "sha256:" + "0" * 64})


def test_everything_lives_in_the_namespace_of_the_quickstart() -> None:
    for path in CANARY.glob("*.yaml"):
        document = _load(path)
        assert document["apiVersion"] == names.API_VERSION
        assert document["metadata"]["namespace"] == "quickstart", path
