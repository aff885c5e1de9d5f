"""The three kinds and the reconcile function of each, imported when the operator starts."""

from dataclasses import dataclass
from importlib import import_module

from tunewright_operator.handlers.loop import Reconcile


@dataclass(frozen=True)
class Kind:
    """A kind with a loop per object."""

    kind: str
    plural: str
    module: str

    def load(self) -> Reconcile:
        """Its `reconcile`."""
        reconcile: Reconcile = import_module(f"tunewright_operator.reconcile.{self.module}").reconcile
        return reconcile


KINDS = (
    Kind("FineTuneJob", "finetunejobs", "finetunejob"),
    Kind("ModelVersion", "modelversions", "modelversion"),
    Kind("InferenceService", "inferenceservices", "inferenceservice"),
)
