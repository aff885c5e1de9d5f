"""The quickstart: its objects are valid, its questions agree, and its dataset says what the contract says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.quickstart.dataset.build import DATASET, FACTS, Fact, build_jsonl, load_facts
from tunewright_api import names
from tunewright_api.crd import KINDS, build_schema
from tunewright_api.finetunejob import FineTuneJob
from tunewright_api.inferenceservice import InferenceService
from tunewright_api.modelversion import Approval, Decision
from tunewright_api.uris import parse_pvc

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"

# Words with a capital inside that are not names of the contract.
_WORDS = {"SmolLM", "LoRA", "vLLM", "DeepSpeed", "ZeRO", "OpenAI"}


def _load(name: str) -> Any:
    return list(yaml.safe_load_all((QUICKSTART / name).read_text()))


def _spec(name: str, model: Any) -> Any:
    (document,) = _load(name)
    assert document["apiVersion"] == names.API_VERSION
    assert document["kind"] == model.__name__
    return model.model_validate({"spec": document["spec"]}).spec


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return load_facts(FACTS.read_text())


@pytest.fixture(scope="module")
def job() -> Any:
    return _spec("02-finetunejob.yaml", FineTuneJob)


# --- the dataset ------------------------------------------------------------------------------


def test_the_committed_dataset_is_what_the_facts_give() -> None:
    assert build_jsonl(FACTS.read_text()) == DATASET.read_text(), "run examples/quickstart/dataset/build.py"


def test_a_changed_contract_changes_the_dataset() -> None:
    facts_yaml = """[{id: rank, answer: "It is {ftj[spec.method.lora.rank].default}.", questions: ["Which rank?"]}]"""
    assert build_jsonl(facts_yaml) == '{"instruction": "Which rank?", "output": "It is 16."}\n'
    with pytest.raises(KeyError):
        build_jsonl("""[{id: gone, answer: "{ftj[spec.method.prefix].default}", questions: [Why]}]""")
    with pytest.raises(KeyError):
        build_jsonl("""[{id: gone, answer: No., check: [ftj spec.method.prefix x], questions: [Why]}]""")
    with pytest.raises(ValueError, match="no longer says"):
        build_jsonl("""[{id: gone, answer: No., check: [ftj spec.suspend explodes], questions: [Why]}]""")


def test_the_dataset_is_big_enough_and_has_no_question_twice() -> None:
    records = [json.loads(line) for line in DATASET.read_text().splitlines()]
    assert len(records) >= 300
    assert all(record.keys() == {"instruction", "output"} for record in records)
    questions = [record["instruction"].casefold() for record in records]
    assert len(set(questions)) == len(questions)


def test_every_fact_has_its_own_answer_in_words_a_small_model_can_learn(facts: list[Fact]) -> None:
    assert len({fact.id for fact in facts}) == len({fact.answer for fact in facts}) == len(facts)
    for fact in facts:
        assert len(fact.answer.split()) <= 20, fact.id
        assert len(fact.questions) >= 4, fact.id


def test_numbers_in_answers_come_from_the_contract() -> None:
    for entry in yaml.safe_load(FACTS.read_text()):
        written = re.sub(r"\{[^}]*\}|SHA-256", "", entry["answer"])
        assert not re.search(r"\d", written), f"{entry['id']}: write a placeholder instead of a number"


def test_every_command_is_a_target_of_the_makefile(facts: list[Fact]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (QUICKSTART.parents[1] / "Makefile").read_text(), re.MULTILINE))
    commands = {command for fact in facts for command in re.findall(r"\bmake ([a-z-]+)", fact.answer)}
    assert {"demo", "demo-down"} <= commands <= targets


def test_every_name_in_the_dataset_is_one_of_the_contract(facts: list[Fact]) -> None:
    known = _WORDS | {"ModelVersions"}
    for kind in KINDS:
        known |= {kind.name} | _collect_names(build_schema(kind))
    for fact in facts:
        for sentence in (fact.answer, *fact.questions):
            for word in re.findall(r"[A-Za-z0-9]+", sentence):
                if re.search(r"[a-z][A-Z]", word):
                    assert word in known, f"{fact.id}: the contract has no {word}"


def _collect_names(schema: Any) -> set[str]:
    """Every property name and enum value below a schema."""
    if isinstance(schema, list):
        return set().union(*map(_collect_names, schema), {item for item in schema if isinstance(item, str)})
    if not isinstance(schema, dict):
        return set()
    return set().union(set(schema.get("properties", ())), *map(_collect_names, schema.values()))


# --- the questions ----------------------------------------------------------------------------


def test_the_demo_asks_what_the_job_samples(job: Any) -> None:
    (questions,) = _load("questions.yaml")
    assert [entry["prompt"] for entry in questions] == job.evaluation.sample_prompts


def test_the_demo_asks_known_facts_in_words_that_are_not_in_the_dataset(facts: list[Fact]) -> None:
    (questions,) = _load("questions.yaml")
    answers = {fact.answer for fact in facts}
    seen = {question.casefold() for fact in facts for question in fact.questions}
    for entry in questions:
        assert entry["answer"] in answers
        assert entry["prompt"].casefold() not in seen


# --- the objects ------------------------------------------------------------------------------


def test_two_training_pods_fit_the_two_cores_they_are_made_for(job: Any) -> None:
    assert job.num_nodes == 2
    assert job.resources_per_node == {"cpu": "900m", "memory": "5Gi"}
    assert {parse_pvc(uri).claim for uri in (job.base_model.uri, *job.dataset.uris.values(), job.output.uri)} == {
        "quickstart"
    }


def test_the_claim_can_be_written_by_both_pods_in_a_restricted_namespace() -> None:
    namespace, claim = _load("01-storage.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "storageClassName" not in claim["spec"]


def test_the_approval_names_the_version_of_the_job_and_nothing_but_the_approval(job: Any) -> None:
    (version,) = _load("03-modelversion.yaml")
    assert version["metadata"]["name"] == f"{job.output.model_name}-{job.output.version}"
    assert version["spec"].keys() == {"approval"}
    written = version["spec"]["approval"]
    assert written["digest"] == "${DIGEST}"
    approval = Approval.model_validate(written | {"digest": "sha256:" + "0" * 64})
    assert approval.decision is Decision.APPROVED


def test_the_service_serves_the_version_of_the_job(job: Any) -> None:
    service = _spec("04-inferenceservice.yaml", InferenceService)
    assert service.model.version_ref.name == f"{job.output.model_name}-{job.output.version}"
    assert service.engine.max_model_len == 512


def test_only_the_approver_has_the_verb() -> None:
    documents = _load("rbac.yaml")
    roles = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Role"}
    bound = {document["roleRef"]["name"]: document["subjects"] for document in documents if document["kind"] != "Role"}
    may_approve = {
        name for name, role in roles.items() if any(names.APPROVE_VERB in rule["verbs"] for rule in role["rules"])
    }
    assert may_approve == {"modelversion-approver"}
    (approver,) = bound["modelversion-approver"]
    (version,) = _load("03-modelversion.yaml")
    assert approver["name"] == version["spec"]["approval"]["approvedBy"]
    assert all({"get", "patch"} <= set(role["rules"][0]["verbs"]) for role in roles.values())


def test_everything_lives_in_one_namespace() -> None:
    for path in (path for path in QUICKSTART.glob("*.yaml") if path.name != "questions.yaml"):
        for document in _load(path.name):
            assert document["metadata"].get("namespace", document["metadata"]["name"]) == "quickstart", path
