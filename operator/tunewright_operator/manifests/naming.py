"""Names of children: derived from the owner's, valid for their kind, and never longer than a label value."""

import hashlib
import re

MAX_NAME = 63


def child_name(owner: str, suffix: str) -> str:
    """`OWNER-SUFFIX`; an owner that is too long or no DNS label is cut and told apart by a hash of its whole name."""
    if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", owner) and len(owner) + 1 + len(suffix) <= MAX_NAME:
        return f"{owner}-{suffix}"
    digest = hashlib.sha256(owner.encode()).hexdigest()[:6]
    room = MAX_NAME - len(suffix) - len(digest) - 2
    return f"{owner.replace('.', '-')[:room].rstrip('-')}-{digest}-{suffix}"


def revision_name(service: str, revision: str) -> str:
    """Deployment, ConfigMap and Service of one revision of an InferenceService."""
    return child_name(service, revision)


def service_host(namespace: str, name: str) -> str:
    """Name of a Service, complete, so that it means the same to a proxy in any namespace."""
    return f"{name}.{namespace}.svc.cluster.local"
