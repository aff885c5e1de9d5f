"""spec.distributed of a FineTuneJob: how several processes share the work."""

from typing import Literal

from pydantic import Field

from tunewright_api.base import (
    Model,
)


class DeepSpeed(Model):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        description="What all processes share: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights."
    )


class Distributed(Model):
    """How more than one process shares the work."""

    deepspeed: DeepSpeed = Field(description="Train with DeepSpeed ZeRO.")
