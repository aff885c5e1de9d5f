"""A model on disk: `manifest.json` with a SHA-256 per file, and one digest over all of them.

    ARTIFACT/
      manifest.json      this module's Manifest
      model/             merged weights, tokenizer, configuration (absent for an adapter-only export)
      adapter/           peft adapter (absent for full fine-tuning)
      evaluation.json    figures and samples
      report/            a page for people, the log of the steps, the loss curve, TensorBoard files

The digest is the SHA-256 of one line per file, `<sha256>  <size>  <path>\\n`, sorted by path.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from tunewright_api.base import Digest, Model
from tunewright_api.method import AdapterType

MANIFEST = "manifest.json"
MODEL_DIR = "model"
ADAPTER_DIR = "adapter"
EVALUATION = "evaluation.json"
REPORT_DIR = "report"
_CHUNK = 1 << 20


class ArtifactError(Exception):
    """The files are not what the manifest or the digest says; the message names the file."""


class ManifestFile(Model):
    """One file of the artifact."""

    path: str = Field(description="Path below the artifact's directory, with forward slashes.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(description="Hex SHA-256 of the content.")


class Manifest(Model):
    """manifest.json."""

    job_uid: str = Field(description="UID of the FineTuneJob that wrote the artifact.")
    kind: str = Field(description="Full or Adapter.")
    adapter_type: AdapterType | None = Field(default=None, description="What adapter/ holds; absent without it.")
    sparsity: float | None = Field(
        default=None, description="Share of the pruned matrices' weights that is 0; absent without pruning."
    )
    base_model: str = Field(description="URI of the base model.")
    files: list[ManifestFile] = Field(description="Every file but manifest.json, sorted by path.")
    digest: Digest = Field(description="Digest over files.")
    chat_template_digest: Digest | None = Field(default=None, description="Digest of the base model's chat template.")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def compute_digest(files: Iterable[ManifestFile]) -> str:
    """`sha256:…` over the list of files (see the module's docstring for the formula)."""
    lines = (f"{file.sha256}  {file.size}  {file.path}\n" for file in sorted(files, key=lambda f: f.path))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def list_files(root: Path) -> list[ManifestFile]:
    """Hash every file below root but the manifest, sorted by path.

    Raises ArtifactError, which names the first thing that is no regular file and no directory: a link shows a reader
    something that the digest does not cover.
    """
    return sorted(
        (
            ManifestFile(path=p.relative_to(root).as_posix(), size=p.stat().st_size, sha256=sha256_file(p))
            for p in _regular_files(root, root)
            if p != root / MANIFEST
        ),
        key=lambda f: f.path,
    )


def _regular_files(directory: Path, root: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _regular_files(path, root)
        elif stat.S_ISREG(mode):
            yield path
        else:
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise ArtifactError(
                f"{path.relative_to(root).as_posix()} is {kind}, and the digest covers regular files only: replace it "
                "by its content, or remove it"
            )


def verify(root: Path, expected: str) -> Manifest:
    """Recompute every hash below root and compare with its manifest and with the expected digest.

    Raises ArtifactError, which names the first file that is missing, added or changed.
    """
    try:
        manifest = Manifest.model_validate_json((root / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{root / MANIFEST} does not exist: the artifact was moved or never completed") from error
    except ValueError as error:
        raise ArtifactError(f"{root / MANIFEST} is not a manifest: {error}") from error
    recorded = {file.path: file for file in manifest.files}
    actual = {file.path: file for file in list_files(root)}
    for path in sorted(recorded.keys() | actual.keys()):
        if path not in actual:
            raise ArtifactError(f"{path} is missing from the artifact: restore it, or register a new version")
        if path not in recorded:
            raise ArtifactError(f"{path} is not in the manifest: remove it, or register a new version")
        if actual[path] != recorded[path]:
            raise ArtifactError(f"{path} was changed after export: restore it, or register a new version")
    digest = compute_digest(actual.values())
    if digest != expected:
        raise ArtifactError(f"the artifact's digest is {digest}, not {expected}: it is another artifact")
    return manifest
