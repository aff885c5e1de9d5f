"""Base of every model of the contract: camelCase on the wire, unknown fields refused, values frozen."""

from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class Rule(NamedTuple):
    """One CEL validation: `rule` must hold, else the apiserver answers `message`."""

    rule: str
    message: str


def _extend_schema(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Carry into the JSON schema what the CRD generator needs: CEL rules, and `{}` as the default of an object
    whose fields have defaults (the apiserver then fills them in)."""
    assert issubclass(model, Model)
    for field in model.model_fields.values():
        if isinstance(field.default_factory, type) and issubclass(field.default_factory, Model):
            schema["properties"][field.alias]["default"] = {}
    rules = [rule._asdict() for rule in model.cel]
    for name in model.immutable:
        rules.append(
            {
                "rule": f"has(self.{name}) == has(oldSelf.{name}) && "
                f"(!has(self.{name}) || self.{name} == oldSelf.{name})",
                "message": f"{name} {model.immutable_advice}",
            }
        )
    if rules:
        schema["x-kubernetes-validations"] = rules


class Model(BaseModel):
    """A frozen object of the contract.

    `cel` holds the cross-field rules the apiserver enforces on this object, and the trainer on its file; `immutable`
    names (in camelCase) the fields that cannot change after creation, with `immutable_advice` as the remedy.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        json_schema_extra=_extend_schema,
    )

    cel: ClassVar[tuple[Rule, ...]] = ()
    immutable: ClassVar[tuple[str, ...]] = ()
    immutable_advice: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The object as it appears in YAML: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(Model):
    """A status object: written by us and read back, so fields of a newer operator are ignored."""

    model_config = ConfigDict(extra="ignore")


Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
# Names of most kinds: DNS labels with dots between them (RFC 1123). A ModelVersion may be called guide-1.0.
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=SUBDOMAIN)]
VersionName = Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=SUBDOMAIN)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Text = Annotated[str, StringConstraints(max_length=1024)]
LongText = Annotated[str, StringConstraints(max_length=8192)]
# A time span is kept as the user wrote it ("90s", "10m", "1h").
Duration = Annotated[str, StringConstraints(max_length=8, pattern=r"^[1-9][0-9]{0,6}[smh]$")]
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: Duration) -> int:
    """A Duration in seconds."""
    return int(duration[:-1]) * _UNIT_SECONDS[duration[-1]]


# A quantity is kept as the user wrote it ("500m", "24Gi", 8), so that Argo CD sees no diff.
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]


def whole_gpus(field: str) -> Rule:
    """GPUs are devices: Kubernetes takes no part of one. `field` is where this object says how many."""
    gpu = f"self.{field}['nvidia.com/gpu']"
    return Rule(
        f"!has(self.{field}) || !('nvidia.com/gpu' in self.{field}) || "
        f"string({gpu}).matches('^(0|[1-9][0-9]{{0,3}})$')",
        f"{field}['nvidia.com/gpu'] must be a whole number without a unit, such as 8",
    )


class LocalObjectRef(Model):
    """A reference to an object in the same namespace."""

    name: ObjectName = Field(description="Name of the object, in the namespace of the object that refers to it.")
