"""Pure builders of what leads requests to the revisions of an InferenceService."""

from tunewright_operator.manifests.traffic.split import Split

__all__ = ["Split"]
