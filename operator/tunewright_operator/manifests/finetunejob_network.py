"""How the pods of a run find each other, and who else may talk to them."""

from typing import Any

from tunewright_api.names import LABEL_STAGE, PORT_RENDEZVOUS, Stage
from tunewright_operator.config import OperatorConfig
from tunewright_operator.manifests.common import child_metadata, owner_labels
from tunewright_operator.manifests.finetunejob_names import network_name

Manifest = dict[str, Any]


def build_service(owner: Manifest) -> Manifest:
    """Headless Service: the pods must resolve each other's names before they can become ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, network_name(owner)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": owner_labels(owner) | {LABEL_STAGE: Stage.TRAIN.value},
            "ports": [{"name": "rendezvous", "port": PORT_RENDEZVOUS}],
        },
    }


def build_network_policy(owner: Manifest, config: OperatorConfig) -> Manifest:
    """The run's pods talk among themselves; the operator reads the progress; nobody else gets in."""
    own = {"matchLabels": owner_labels(owner)}
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": config.namespace}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(owner, network_name(owner)),
        "spec": {
            "podSelector": own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": own}]},
                {"from": [operator], "ports": [{"port": config.trainer_port}]},
            ],
        },
    }
