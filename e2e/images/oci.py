"""Write image layers and archives in the OCI format: deterministic, streamed, each byte touched as rarely as possible.

Layers are compressed with zstd's fastest level. A layer is written three times (our cache, containerd's content store,
the unpacked snapshot), so that 200 MB/s of compression cost less than writing 3.8 GB twice more at a disk's 150 MB/s.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from e2e.images.common import ImageBuildError, file_digest

EPOCH = 0
CHUNK = 1 << 20
MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True)
class Blob:
    """A blob in a layout folder, by digest (`sha256:…`) and size in bytes; a layer also by its content uncompressed."""

    digest: str
    size: int
    diff_id: str = ""
    unpacked_size: int = 0

    def path(self, layout: Path) -> Path:
        """Return where the blob lies in a layout folder."""
        return layout / "blobs" / "sha256" / self.digest.removeprefix("sha256:")

    def descriptor(self, media_type: str) -> dict[str, Any]:
        """Return the OCI descriptor of the blob."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """An image whose blobs lie in a layout folder."""

    name: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]


class HashingWriter:
    """A file that knows the SHA-256 and the length of what was written to it."""

    def __init__(self, raw: IO[bytes]) -> None:
        """Write through to `raw`."""
        self.raw = raw
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.sha256.update(data)
        self.size += len(data)
        return self.raw.write(data)

    def tell(self) -> int:
        """Return the number of bytes written, which tarfile asks for."""
        return self.size

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self.sha256.hexdigest()}"


def _entries(folder: Path, prefix: str = "") -> Iterable[tuple[str, Path]]:
    """Yield (name in the archive, path) in a fixed order, parents first."""
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        name = f"{prefix}{entry.name}"
        yield name, Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), name + "/")


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def write_layer_tar(folder: Path, stream: IO[bytes]) -> None:
    """Write a folder as a layer; overlayfs's marks for deleted files become the OCI ones (`.wh.NAME`)."""
    links: dict[tuple[int, int], str] = {}
    archive = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
    for name, path in _entries(folder):
        state = path.lstat()
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid, info.mtime = stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid, EPOCH
        if stat.S_ISDIR(state.st_mode):
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
            if _is_opaque(path):
                archive.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))
        elif stat.S_ISLNK(state.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            archive.addfile(info)
        elif stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
            parent, _, leaf = name.rpartition("/")
            archive.addfile(tarfile.TarInfo(f"{parent}/.wh.{leaf}".lstrip("/")))
        elif stat.S_ISREG(state.st_mode):
            first = links.setdefault((state.st_dev, state.st_ino), name)
            if first != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                archive.addfile(info)
            else:
                info.size = state.st_size
                with path.open("rb") as content:
                    archive.addfile(info, content)
    archive.close()


def store_layer(folder: Path, layout: Path) -> Blob:
    """Write a folder as a compressed layer blob into a layout folder."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=blobs, prefix=".writing-") as temporary:
        # One thread: the other core is compiling Kubernetes, and the digest must not depend on the machine.
        command = ["zstd", "-1", "--quiet", "--stdout", "--no-progress"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=temporary) as compressor:
            assert compressor.stdin is not None
            writer = HashingWriter(compressor.stdin)
            write_layer_tar(folder, cast(IO[bytes], writer))
            compressor.stdin.close()
        if compressor.returncode != 0:
            raise ImageBuildError(f"zstd ended with {compressor.returncode}. Check the free space with 'df -h'.")
        path = Path(temporary.name)
        blob = Blob(f"sha256:{file_digest(path)}", path.stat().st_size, writer.digest, writer.size)
        path.chmod(0o644)
        blob.path(layout).unlink(missing_ok=True)
        os.link(path, blob.path(layout))
    return blob


def store_json(document: Mapping[str, Any], layout: Path) -> Blob:
    """Write a JSON document as a blob."""
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    blob = Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    blob.path(layout).parent.mkdir(parents=True, exist_ok=True)
    blob.path(layout).write_bytes(content)
    return blob


def architecture() -> str:
    """Return this machine's architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def store_image(
    name: str, layers: Sequence[Blob], titles: Sequence[str], config: Mapping[str, Any], layout: Path
) -> Image:
    """Write configuration and manifest of an image; `config` is OCI's (Env, User, Entrypoint, …)."""
    document = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": title} for title in titles],
    }
    config_blob = store_json(document, layout)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": config_blob.descriptor(f"{MEDIA}.config.v1+json"),
        "layers": [layer.descriptor(f"{MEDIA}.layer.v1.tar+zstd") for layer in layers],
    }
    return Image(name, store_json(manifest, layout), config_blob, tuple(layers))


def write_archive(
    images: Sequence[Image], layout: Path, stream: IO[bytes], *, skip: frozenset[str] = frozenset()
) -> int:
    """Stream images as one OCI archive, each blob once; return the bytes of the blobs sent.

    Args:
        images: What to send.
        layout: The folder with the blobs.
        stream: Where to; need not be seekable.
        skip: Digests of layers that the receiver has already.
    """
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                **image.manifest.descriptor(f"{MEDIA}.manifest.v1+json"),
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": image.name,
                    "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
                },
            }
            for image in images
        ],
    }
    archive = tarfile.open(fileobj=stream, mode="w|", bufsize=CHUNK)  # noqa: SIM115
    for name, document in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
        content = json.dumps(document).encode()
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    blobs = {blob for image in images for blob in (image.manifest, image.config, *image.layers)}
    sent = 0
    for blob in sorted(blobs, key=lambda item: (item.size, item.digest)):
        if blob.digest in skip:
            continue
        info = tarfile.TarInfo(f"blobs/sha256/{blob.digest.removeprefix('sha256:')}")
        info.size, info.mode = blob.size, 0o644
        with blob.path(layout).open("rb") as source:
            archive.addfile(info, source)
        sent += blob.size
    archive.close()
    return sent
