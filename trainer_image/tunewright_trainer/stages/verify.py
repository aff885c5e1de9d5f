"""verify: recompute an artifact's digest. Needs nothing but the standard library and pydantic."""

from pathlib import Path

from tunewright_api.artifact import MANIFEST, ArtifactError, verify
from tunewright_api.names import ExitCode
from tunewright_api.results import VerifyResult
from tunewright_api.trainer_config import VerifyConfig
from tunewright_trainer.errors import StageError


def run(config: VerifyConfig) -> VerifyResult:
    """Compare every file with the manifest and the manifest with the digest.

    Raises:
        StageError: DIGEST_MISMATCH naming the file.
    """
    root = Path(config.artifact)
    try:
        manifest = verify(root, config.digest)
    except ArtifactError as error:
        raise StageError(ExitCode.DIGEST_MISMATCH, f"{root}: {error}") from error
    size = sum(file.size for file in manifest.files) + (root / MANIFEST).stat().st_size
    return VerifyResult(digest=manifest.digest, size_bytes=size)
