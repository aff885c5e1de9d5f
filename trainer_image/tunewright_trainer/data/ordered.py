"""The prepared records as micro batches: one record per row, in the order of the whole run."""

from collections.abc import Sequence

from tunewright_trainer.batches import collate, labels
from tunewright_trainer.data.split import DataOrder
from tunewright_trainer.data.store import PreparedRecord
from tunewright_trainer.objectives.objective import IGNORED, Batch


class OrderedRecords:
    """A `loader.BatchSource`; padded to the longest row of the micro batch."""

    def __init__(self, records: Sequence[PreparedRecord], order: DataOrder) -> None:
        self.records = records
        self.order = order

    def batch(self, positions: range) -> Batch:
        """The records at these positions.

        `units` counts the tokens that are predicted: labels but for the first of each row, which nothing precedes.
        """
        chosen = [self.records[self.order[position]] for position in positions]
        tensors = collate([{"input_ids": record.ids, "labels": labels(record)} for record in chosen])
        expected = tensors.pop("labels")
        return Batch(
            inputs=tensors,
            labels=expected,
            units=int((expected[:, 1:] != IGNORED).sum()),
            tokens=sum(len(record.ids) for record in chosen),
            samples=len(chosen),
        )
