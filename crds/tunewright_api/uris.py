"""URIs of models, data and artifacts: `hf://org/name`, `pvc://claim/path` and `s3://bucket/key`."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import StringConstraints

from tunewright_api.names import CLAIM_MOUNT_ROOT

_CLAIM = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
PVC_PATTERN = rf"^pvc://{_CLAIM}(/{_SEGMENT})*$"
DATA_PATTERN = rf"^(pvc://{_CLAIM}(/{_SEGMENT})*|s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9](/{_SEGMENT})+)$"
MODEL_PATTERN = rf"^(pvc://{_CLAIM}(/{_SEGMENT})+|hf://{_SEGMENT}/{_SEGMENT})$"

# Segments cannot start with a dot, so no URI can climb out of its claim.
PvcUri = Annotated[str, StringConstraints(pattern=PVC_PATTERN, max_length=512)]
DataUri = Annotated[str, StringConstraints(pattern=DATA_PATTERN, max_length=512)]
ModelUri = Annotated[str, StringConstraints(pattern=MODEL_PATTERN, max_length=512)]


@dataclass(frozen=True)
class ClaimPath:
    """A path inside a PersistentVolumeClaim."""

    claim: str
    path: str

    @property
    def mount(self) -> PurePosixPath:
        """Where this path appears inside our containers."""
        return claim_mount(self.claim) / self.path


def claim_mount(claim: str) -> PurePosixPath:
    """Mount point of a claim inside our containers."""
    return PurePosixPath(CLAIM_MOUNT_ROOT) / claim


def parse_pvc(uri: str) -> ClaimPath:
    """Split `pvc://claim/path`; raises ValueError on any other URI."""
    scheme, _, rest = uri.partition("://")
    claim, _, path = rest.partition("/")
    if scheme != "pvc" or not claim:
        raise ValueError(f"{uri!r} is not a claim: write pvc://CLAIM/PATH")
    return ClaimPath(claim, path)


def is_pvc(uri: str) -> bool:
    """Whether the URI names a path in a PersistentVolumeClaim."""
    return uri.startswith("pvc://")


def hub_id(uri: str) -> str:
    """`org/name` of `hf://org/name`; raises ValueError on any other URI."""
    if not uri.startswith("hf://"):
        raise ValueError(f"{uri!r} is not a Hugging Face model: write hf://ORG/NAME")
    return uri.removeprefix("hf://")
