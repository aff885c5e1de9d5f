"""The prepared records as micro batches, in the order of the whole run."""

from collections.abc import Sequence

from torch import nn

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_trainer.batches import Packing, make_batch
from tunewright_trainer.data.order import Order
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.objectives.forward import bare
from tunewright_trainer.objectives.objective import Batch


def packing_of(hyperparameters: Hyperparameters, model: nn.Module) -> Packing:
    """How the rows of training are made, by hyperparameters.packing and the attention that the model computes with."""
    if not hyperparameters.packing:
        return Packing.NONE
    backend = str(getattr(getattr(bare(model), "config", None), "_attn_implementation", ""))
    return Packing.FLAT if "flash" in backend else Packing.ROWS


class OrderedRecords:
    """A `loader.BatchSource`."""

    def __init__(self, records: Sequence[PreparedRecord], order: Order, packing: Packing = Packing.NONE) -> None:
        self.records = records
        self.order = order
        self.packing = packing

    def batch(self, positions: range) -> Batch:
        """The records at these positions."""
        return make_batch([self.records[self.order[position]] for position in positions], self.packing)
