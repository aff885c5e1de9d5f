"""FineTuneJob -> the trainer image's configuration file, and the ConfigMap that carries it."""

import json
from typing import Any

from tunewright_api.dataset import Dataset
from tunewright_api.evaluation import Evaluation
from tunewright_api.finetunejob import BaseModelSource, FineTuneJobSpec, Output
from tunewright_api.names import CONFIG_FILE, PORT_TRAINER
from tunewright_api.objective import Objective
from tunewright_api.trainer_config import (
    DatasetInput,
    Directories,
    EvaluationInputs,
    JobIdentity,
    MixtureInput,
    ModelInput,
    ObjectiveInputs,
    Rendezvous,
    TrainerConfig,
)
from tunewright_api.uris import ClaimPath, hub_id, is_pvc, parse_pvc
from tunewright_operator.manifests.common import child_metadata
from tunewright_operator.manifests.finetunejob_names import config_name
from tunewright_operator.manifests.resources import gpus_per_node, processes_per_node

Manifest = dict[str, Any]


def build_trainer_config(owner: Manifest, spec: FineTuneJobSpec, *, port: int = PORT_TRAINER) -> TrainerConfig:
    """The whole run; the same file for every stage and every attempt."""
    metadata = owner["metadata"]
    return TrainerConfig(
        job=JobIdentity(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]),
        model=_model_input(spec.base_model),
        dataset=_dataset_input(spec.dataset),
        objective=spec.objective,
        objective_inputs=_objective_inputs(spec.objective),
        method=spec.method,
        hyperparameters=spec.hyperparameters,
        distributed=spec.distributed,
        rendezvous=Rendezvous(
            nodes=spec.num_nodes,
            processes_per_node=processes_per_node(spec),
            gpus_per_node=gpus_per_node(spec.resources_per_node),
        ),
        checkpoint=spec.checkpoint,
        evaluation=spec.evaluation,
        evaluation_inputs=_evaluation_inputs(spec.evaluation),
        export=spec.export,
        directories=Directories(
            work=str(parse_pvc(spec.output.uri).mount / ".work" / metadata["uid"]),
            artifact=str(parse_pvc(artifact_uri(spec.output)).mount),
        ),
        port=port,
    )


def build_config_map(owner: Manifest, spec: FineTuneJobSpec, *, port: int = PORT_TRAINER) -> Manifest:
    """ConfigMap NAME-config."""
    config = build_trainer_config(owner, spec, port=port)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, config_name(owner)),
        "data": {CONFIG_FILE: json.dumps(config.to_dict(), indent=2)},
    }


def artifact_uri(output: Output) -> str:
    """Where the artifact of the job goes: OUTPUT/MODELNAME/VERSION."""
    return f"{output.uri.rstrip('/')}/{output.model_name}/{output.version}"


def claims_of(spec: FineTuneJobSpec) -> dict[str, str]:
    """Claims that the pods mount -> the field of the spec that names each; the output's field wins."""
    claims: dict[str, str] = {}
    for field, uri in spec.dataset.uris.items():
        if is_pvc(uri):
            claims.setdefault(parse_pvc(uri).claim, field)
    for part, source in (("general", spec.evaluation.general), ("harness", spec.evaluation.harness)):
        if source:
            claims.setdefault(parse_pvc(source.uri).claim, f"evaluation.{part}.uri")
    for field, uri in _objective_uris(spec.objective).items():
        claims.setdefault(parse_pvc(uri).claim, f"objective.supervised.{field}.uri")
    if is_pvc(spec.base_model.uri):
        claims[parse_pvc(spec.base_model.uri).claim] = "baseModel.uri"
    return claims | {output_path(spec).claim: "output.uri"}


def output_path(spec: FineTuneJobSpec) -> ClaimPath:
    """The directory of output.uri in its claim."""
    return parse_pvc(spec.output.uri)


def _dataset_input(dataset: Dataset) -> DatasetInput:
    parts = dataset.mixture or []
    return DatasetInput(
        path=_data_path(dataset.uri) if dataset.uri else None,
        format=dataset.format,
        mixture=[MixtureInput(path=_data_path(p.uri), format=p.format, weight=p.weight) for p in parts] or None,
        ignore_fields=dataset.ignore_fields,
        validation_percent=dataset.validation_percent,
        on_bad_row=dataset.on_bad_row,
        on_long_record=dataset.on_long_record,
        on_duplicate=dataset.on_duplicate,
    )


def _data_path(uri: str) -> str:
    return str(parse_pvc(uri).mount) if is_pvc(uri) else uri


def _evaluation_inputs(evaluation: Evaluation) -> EvaluationInputs:
    general, harness = evaluation.general, evaluation.harness
    return EvaluationInputs(
        general=str(parse_pvc(general.uri).mount) if general else None,
        harness=str(parse_pvc(harness.uri).mount) if harness else None,
    )


def _objective_uris(objective: Objective) -> dict[str, str]:
    """Field below objective.supervised -> what it names."""
    supervised = objective.supervised
    uris = {}
    if supervised and supervised.ewc:
        uris["ewc.reference"] = supervised.ewc.reference.uri
    if supervised and supervised.distillation:
        uris["distillation.teacher"] = supervised.distillation.teacher.uri
    return uris


def _objective_inputs(objective: Objective) -> ObjectiveInputs:
    mounts = {field.rpartition(".")[2]: str(parse_pvc(uri).mount) for field, uri in _objective_uris(objective).items()}
    return ObjectiveInputs(**mounts)


def _model_input(source: BaseModelSource) -> ModelInput:
    if is_pvc(source.uri):
        return ModelInput(uri=source.uri, path=str(parse_pvc(source.uri).mount))
    return ModelInput(uri=source.uri, hub_id=hub_id(source.uri), revision=source.revision)
