"""An artifact's digest names every byte of it."""

import os
from pathlib import Path

import pytest

from tunewright_api.artifact import MANIFEST, ArtifactError, Manifest, compute_digest, list_files, verify


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, str]:
    root = tmp_path / "v1"
    (root / "model").mkdir(parents=True)
    (root / "model" / "weights.safetensors").write_bytes(b"\0" * 2048)
    (root / "evaluation.json").write_text("{}")
    files = list_files(root)
    digest = compute_digest(files)
    manifest = Manifest(job_uid="1", kind="Full", base_model="pvc://a/b", files=files, digest=digest)
    (root / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return root, digest


def test_untouched_files_verify(artifact: tuple[Path, str]) -> None:
    root, digest = artifact
    assert verify(root, digest).digest == digest


def move_and_link(path: Path) -> None:
    """Leave a link to the same bytes, outside the artifact."""
    outside = path.parent.parent / path.name
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "evaluation.json").write_text("[]"), "evaluation.json was changed"),
        (lambda root: (root / "evaluation.json").unlink(), "evaluation.json is missing"),
        (lambda root: (root / "model" / "extra.py").write_text(""), "model/extra.py is not in the manifest"),
        (lambda root: (root / MANIFEST).unlink(), "does not exist"),
        (lambda root: (root / MANIFEST).write_text("{"), "is not a manifest"),
        (lambda root: (root / "code").symlink_to(root / "model"), "code is a symbolic link"),
        (lambda root: (root / "model" / "gone").symlink_to("nowhere"), "model/gone is a symbolic link"),
        (lambda root: move_and_link(root / "evaluation.json"), "evaluation.json is a symbolic link"),
        (lambda root: move_and_link(root / MANIFEST), "manifest.json is a symbolic link"),
        (lambda root: os.mkfifo(root / "model" / "pipe"), "model/pipe is a special file"),
    ],
    ids=[
        *("changed", "missing", "added", "no manifest", "broken manifest"),
        *("linked directory", "broken link", "linked file", "linked manifest", "pipe"),
    ],
)
def test_every_harm_is_named(artifact: tuple[Path, str], harm, message: str) -> None:  # type: ignore[no-untyped-def]
    root, digest = artifact
    harm(root)
    with pytest.raises(ArtifactError, match=message):
        verify(root, digest)


def test_another_artifact_is_refused(artifact: tuple[Path, str]) -> None:
    with pytest.raises(ArtifactError, match="it is another artifact"):
        verify(artifact[0], "sha256:" + "0" * 64)
