"""Guards of a FineTuneJob's training: when a run that goes wrong is ended."""

from pydantic import Field

from tunewright_api.base import Model


class Divergence(Model):
    """When the smoothed loss (exponential moving average, 0.9 of the past) counts as diverged. A loss that is no
    number ends every run."""

    factor: float = Field(
        default=2.0, gt=1, le=1000, description="How many times its own minimum the smoothed loss must exceed."
    )
    patience: int = Field(
        default=20, ge=1, le=1_000_000, description="Consecutive optimizer steps for which it must do so."
    )
