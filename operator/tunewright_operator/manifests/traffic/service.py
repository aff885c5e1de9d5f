"""The Services of an InferenceService, whoever routes."""

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.names import LABEL_REVISION
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.manifests.common import Manifest, child_metadata, owner_labels
from tunewright_operator.manifests.naming import revision_name
from tunewright_operator.manifests.server import SERVICE_PORT, revision_selector
from tunewright_operator.manifests.traffic.split import Split


def build_services(owner: Manifest, spec: InferenceServiceSpec, split: Split) -> tuple[Manifest, ...]:
    """The Service that clients know, and one for each revision."""
    name = owner["metadata"]["name"]
    return (
        build_service(owner, name, _main_selector(owner, spec, split)),
        *(
            build_service(owner, revision_name(name, revision), revision_selector(owner, revision), revision)
            for revision in split.named
        ),
    )


def build_service(owner: Manifest, name: str, selector: dict[str, str], revision: str | None = None) -> Manifest:
    """A Service in front of the API of some of the pods. The port's name tells a mesh that it speaks HTTP."""
    labels = {LABEL_REVISION: revision} if revision else None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, name, labels),
        "spec": {
            "selector": selector,
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _main_selector(owner: Manifest, spec: InferenceServiceSpec, split: Split) -> dict[str, str]:
    """One revision; with nobody else to share requests, the pods of both do, each with its part of the connections."""
    if spec.traffic.provider is not TrafficProvider.NONE:
        return revision_selector(owner, split.stable)
    if len(split.shares) > 1:
        return owner_labels(owner)
    ((revision, _),) = split.shares
    return revision_selector(owner, revision)
