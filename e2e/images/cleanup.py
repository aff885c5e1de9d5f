"""Remove cached layers that nothing refers to any more."""

from __future__ import annotations

import json
import shutil

from e2e.images.builder import Builder
from e2e.images.common import say


def remove_unused(maker: Builder, keep: set[str]) -> None:
    """Delete the layers whose key is not in `keep`, and the blobs that no kept layer names."""
    layers = maker.cache / "layers"
    blobs = maker.layout / "blobs" / "sha256"
    named: set[str] = set()
    removed = 0
    for folder in sorted(layers.iterdir()) if layers.is_dir() else ():
        if folder.name not in keep:
            shutil.rmtree(folder)
            removed += 1
        elif (folder / "blob.json").is_file():
            named.add(json.loads((folder / "blob.json").read_text())["digest"].removeprefix("sha256:"))
    for blob in sorted(blobs.iterdir()) if blobs.is_dir() else ():
        if blob.name not in named:
            # Manifests and configurations go as well: `build` writes them again in no time.
            blob.unlink()
    say(f"  removed {removed} unused layers")
