"""CustomResourceDefinitions from the models: pydantic's JSON schema made structural.

`build_crds()` is pure; `tunewright_api.generate` writes the files.
"""

from dataclasses import dataclass
from typing import Any

from tunewright_api.base import Model
from tunewright_api.finetunejob import FineTuneJob
from tunewright_api.inferenceservice import InferenceService
from tunewright_api.modelversion import ModelVersion
from tunewright_api.names import GROUP, VERSION

Schema = dict[str, Any]

# What a structural schema of apiextensions.k8s.io/v1 may say, in the order in which we print it.
_KEYWORDS = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)
_EXTENSIONS = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations")


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; priority 1 shows only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def to_dict(self) -> Schema:
        """As additionalPrinterColumns has it."""
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        if self.priority:
            column["priority"] = self.priority
        return column


def _condition(kind: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


# 40 leaves room for -train-ATTEMPT-INDEX in a host name of 63 characters; a Service's name is an RFC 1035 label.
_HOST_NAME = [
    {
        "rule": "size(self.metadata.name) <= 40",
        "message": "metadata.name: at most 40 characters, since names of pods are made from it",
    },
    {
        "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "message": "metadata.name: write lower-case letters, digits and '-' that start with a letter, such as "
        "guide-v1-0 for guide.v1.0, since the name of a Service is made from it",
    },
]
_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_MESSAGE = Column("Message", ".status.message", priority=1)


@dataclass(frozen=True)
class Kind:
    """A kind of the API and how kubectl shows it."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[Column, ...]
    is_host: bool = False  # names of Services and hosts are made from its objects' names

    @property
    def name(self) -> str:
        """CamelCase name of the kind."""
        return self.model.__name__


KINDS = (
    Kind(
        FineTuneJob,
        "finetunejobs",
        "ftj",
        (
            Column("Stage", ".status.stage"),
            Column("Progress", ".status.progress.summary", description="step/steps · loss · tokens/s · time left"),
            Column("Model Version", ".status.modelVersionRef.name"),
            _AGE,
            Column("Base", ".spec.baseModel.uri", priority=1),
            Column("Nodes", ".spec.numNodes", "integer", priority=1),
            _MESSAGE,
        ),
        is_host=True,
    ),
    Kind(
        ModelVersion,
        "modelversions",
        "mv",
        (
            Column("Model", ".spec.modelName"),
            Column("Version", ".spec.version"),
            Column("Verified", _condition("Verified")),
            Column("Approved", _condition("Approved")),
            _AGE,
            Column("By", ".spec.approval.approvedBy", priority=1),
            Column("Digest", ".spec.artifact.digest", priority=1),
            _MESSAGE,
        ),
    ),
    Kind(
        InferenceService,
        "inferenceservices",
        "tis",
        (
            Column("Ready", _condition("Ready")),
            Column("Version", ".status.stable.version"),
            Column("Replicas", ".status.stable.readyReplicas", "integer"),
            Column("Candidate", ".status.candidate.version"),
            Column("Weight", ".status.candidate.weight", "integer", description="Percent of the candidate"),
            Column("Verdict", ".status.analysis.verdict", description="Outcome of the newest check"),
            Column("URL", ".status.url"),
            _AGE,
            Column("Reason", _condition("Ready", "reason"), priority=1),
            Column("Phase", ".status.candidate.phase", priority=1),
            Column("Rejected", ".status.rejected.version", priority=1),
            _MESSAGE,
        ),
        is_host=True,
    ),
)


def build_schema(kind: Kind) -> Schema:
    """Structural openAPIV3Schema of a kind."""
    raw = kind.model.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(raw, raw.get("$defs", {}), path=kind.name)
    properties = schema["properties"]
    properties["status"]["default"] = {"observedGeneration": -1}
    rules = schema.pop("x-kubernetes-validations", [])
    if kind.is_host:
        rules = [*_HOST_NAME, *rules]
    root: Schema = {
        "description": schema["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind.name}."},
            "metadata": {"type": "object"},
            **properties,
        },
    }
    if rules:
        root["x-kubernetes-validations"] = rules
    return root


def build_crd(kind: Kind) -> Schema:
    """The whole CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "tunewright"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["tunewright"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.to_dict() for column in kind.columns],
                    "schema": {"openAPIV3Schema": build_schema(kind)},
                }
            ],
        },
    }


def build_crds() -> dict[str, Schema]:
    """File name -> CustomResourceDefinition."""
    return {f"{GROUP}_{kind.plural}.yaml": build_crd(kind) for kind in KINDS}


def _structural(node: Schema, defs: dict[str, Schema], *, path: str, in_list: bool = False) -> Schema:
    """One node of pydantic's schema, with references resolved and only structural keywords kept.

    Raises ValueError where the models break a rule of ours: an undescribed field, a default under a list item.
    """
    node = _resolve(node, defs)
    if node.get("x-kubernetes-int-or-string"):
        return {
            "description": node.get("description", ""),
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": node["pattern"],
            "x-kubernetes-int-or-string": True,
        }
    if "anyOf" in node or "oneOf" in node:
        raise ValueError(f"{path}: a union is not structural: give it one type")
    if path.split(".")[1:2] == ["status"] and not path.endswith(".observedGeneration"):
        node.pop("default", None)  # a default in status would be an observation that nobody made
    if in_list and "default" in node:
        raise ValueError(f"{path}: no default under a list item, Argo CD would show it as a diff for ever")
    schema = _scalars(node)
    if "properties" in node:
        schema["properties"] = {
            name: _described(_structural(child, defs, path=f"{path}.{name}", in_list=in_list), f"{path}.{name}")
            for name, child in node["properties"].items()
        }
    elif isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = _structural(
            node["additionalProperties"], defs, path=f"{path}{{}}", in_list=True
        )
    if "items" in node:
        schema["items"] = _structural(node["items"], defs, path=f"{path}[]", in_list=True)
    return schema | {key: node[key] for key in _EXTENSIONS if key in node}


def _scalars(node: Schema) -> Schema:
    """The keywords of the node itself, in the dialect of apiextensions.k8s.io/v1."""
    schema = {key: node[key] for key in _KEYWORDS if key in node}
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "enum" in node and "type" not in node:
        schema["type"] = "integer" if all(isinstance(value, int) for value in node["enum"]) else "string"
    for side in ("Minimum", "Maximum"):
        bound = schema.pop(f"exclusive{side}", None)
        if bound is not None:
            if bound != int(bound):
                # The apiserver rounds the bound towards 0 for a value without decimals: 0 < 0.5 would be refused.
                raise ValueError(f"write an inclusive bound instead of the exclusive one at {bound}")
            schema |= {side.lower(): bound, f"exclusive{side}": True}
    return schema


def _described(schema: Schema, path: str) -> Schema:
    if not schema.get("description"):
        raise ValueError(f"{path}: write a description, `kubectl explain` shows it")
    return schema


def _resolve(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Follow $ref and `X | None`; what stands beside a reference wins over what it refers to."""
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "allOf")}
    if beside.get("default", ...) is None:
        del beside["default"]
    if "$ref" in node:
        target = _resolve(defs[node["$ref"].rpartition("/")[2]], defs)
        return {**target, **beside}
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return {**_resolve(options[0], defs), **beside}
    return {**beside, **({"anyOf": options} if options else {})}
