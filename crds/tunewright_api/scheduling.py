"""Where pods may run: spec.scheduling of a FineTuneJob and of an InferenceService."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from tunewright_api.base import (
    Model,
    Name,
)


class TolerationOperator(StrEnum):
    """How a toleration matches a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint that the training pods accept, as in a pod's spec."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = Field(
        default=None, description="Key of the taint; absent with Exists means every taint."
    )
    operator: TolerationOperator | None = Field(default=None, description="Exists or Equal (Equal if absent).")
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Value of the taint, with Equal."
    )
    effect: TaintEffect | None = Field(default=None, description="Effect to match; every effect if absent.")


class Scheduling(Model):
    """Where the pods of all stages may run."""

    node_selector: dict[str, Annotated[str, StringConstraints(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels a node must have."
    )
    tolerations: list[Toleration] | None = Field(default=None, max_length=16, description="Taints the pods accept.")
    priority_class_name: Name | None = Field(default=None, description="PriorityClass of the pods.")
