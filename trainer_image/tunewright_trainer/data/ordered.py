"""The prepared records as micro batches, in the order of the whole run."""

from collections.abc import Sequence

from tunewright_trainer.batches import Packing, make_batch
from tunewright_trainer.data.order import Order
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.objectives.objective import Batch


class OrderedRecords:
    """A `loader.BatchSource`."""

    def __init__(self, records: Sequence[PreparedRecord], order: Order, packing: Packing = Packing.NONE) -> None:
        self.records = records
        self.order = order
        self.packing = packing

    def batch(self, positions: range) -> Batch:
        """The records at these positions."""
        return make_batch([self.records[self.order[position]] for position in positions], self.packing)
