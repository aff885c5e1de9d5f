"""export.pruning of a FineTuneJob: small weights become 0."""

from enum import StrEnum

from pydantic import Field

from tunewright_api.base import Model


class PruningScope(StrEnum):
    """Among which weights the smallest are looked for."""

    MATRIX = "Matrix"
    GLOBAL = "Global"


class Pruning(Model):
    """Magnitude pruning (Han et al. 2015, arXiv:1506.02626) of the decoder's linear layers: the smallest weights become
    0. The artifact keeps its size; formats and engines that know sparsity make use of it."""

    sparsity: float = Field(gt=0, le=0.95, description="Share of the weights that become 0, for example 0.3.")
    scope: PruningScope = Field(
        default=PruningScope.MATRIX,
        description="Matrix prunes every matrix to the same share; Global all of them together, by one threshold.",
    )
