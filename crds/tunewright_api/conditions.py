"""metav1.Condition as all three kinds report it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from tunewright_api.base import StatusModel


class ConditionStatus(StrEnum):
    """Whether the condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One observation about the object, in the form of metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=63)] = Field(description="Type of the condition, in CamelCase.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        description="Why, as one stable CamelCase word for programs."
    )
    message: Annotated[str, StringConstraints(max_length=4096)] = Field(
        default="", description="Why, and what to do about it, as a sentence for people."
    )
    observed_generation: int = Field(description="metadata.generation that this condition speaks of.")
    last_transition_time: Annotated[str, StringConstraints(max_length=32)] = Field(
        description="When the status last changed (RFC 3339).",
        json_schema_extra={"format": "date-time"},
    )
