"""Carry out planned layers without a container engine: overlayfs and chroot, in a mount namespace of their own.

A layer is a folder in the cache: what its step added to the layers below. The base comes from `mmdebstrap`. Needs root
on Linux; a machine with Docker or buildah builds the same Dockerfiles with those instead.

The machine's own settings for package registries (certificates, pip's and apt's configuration, proxies) are mounted
read-only or handed over as variables while a step runs. They are in no layer and in no key.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from e2e.images.common import ImageBuildError, content_key, locked, run, step, uv
from e2e.images.oci import Blob, store_layer
from e2e.images.plan import BUILDER_VERSION, IGNORED, Layer

SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "libnuma1", "libstdc++6", "python3", "python3-venv")
"""python3-venv and libnuma1 are what the Dockerfiles would install otherwise; the rest of python:slim is not needed."""

PASSED_PREFIXES = ("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "SSL_CERT_")
PASSED_NAMES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
MACHINE_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs",
    "/etc/apt/apt.conf.d",
    "/etc/apt/auth.conf.d",
)
NEEDED = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "mount": "mount", "chroot": "coreutils", "zstd": "zstd"}


def base_layer() -> Layer:
    """Return the base that stands in for BASE_IMAGE; its key is its recipe."""
    key = content_key("base", BUILDER_VERSION, SUITE, *BASE_PACKAGES)
    return Layer(kind="base", key=key, title=f"Debian {SUITE} with python3")


def machine_settings(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return (variables, paths) by which this machine reaches its package registries. Pure but for looking at paths."""
    passed = {
        name: value
        for name, value in environment.items()
        if name.upper().startswith(PASSED_PREFIXES) or name.upper() in PASSED_NAMES
    }
    named = [value for value in passed.values() if value.startswith("/")]
    paths = [path for path in dict.fromkeys([*MACHINE_FILES, *named]) if Path(path).exists()]
    # A file in a folder that is mounted anyway needs no mount of its own.
    return passed, [path for path in paths if not any(path.startswith(other + "/") for other in paths)]


def host_cache(mount: str) -> Path | None:
    """Return the folder of this machine behind a `--mount=type=cache`; only uv's cache exists."""
    options = dict(part.partition("=")[::2] for part in mount.split(","))
    if options.get("type") != "cache" or not options.get("target", "").endswith("/uv"):
        raise ImageBuildError(f"--mount={mount} is not supported. Mount a cache whose target ends in /uv.")
    return Path(subprocess.run([*uv(), "cache", "dir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


class Builder:
    """Makes layers and keeps them in a cache folder: layers/KEY/diff, layers/KEY/blob.json and oci/blobs."""

    def __init__(self, cache: Path) -> None:
        """Use `cache` (usually cache_root() / "images")."""
        self.cache = cache
        self.layout = cache / "oci"

    def blob(self, layer: Layer) -> Blob:
        """Return the layer as a blob in the layout, made if need be."""
        record = self.cache / "layers" / layer.key / "blob.json"
        with locked(f"layer-{layer.key}-blob"):
            if record.is_file():
                blob = Blob(**json.loads(record.read_text()))
                if blob.path(self.layout).is_file():
                    return blob
            folder = self.folder(layer)
            with step(f"pack {layer.title}"):
                blob = store_layer(folder, self.layout)
            record.write_text(json.dumps(asdict(blob)))
        return blob

    def folder(self, layer: Layer) -> Path:
        """Return the folder with what the layer adds, made if need be."""
        folder = self.cache / "layers" / layer.key / "diff"
        if folder.is_dir():
            return folder
        with locked(f"layer-{layer.key}"):
            if not folder.is_dir():
                self._make(layer, folder)
        return folder

    def _make(self, layer: Layer, folder: Path) -> None:
        makers: dict[str, Callable[[Layer, Path, Path], None]] = {
            "base": self._make_base,
            "run": self._make_run,
            "copy": self._make_copy,
        }
        # Sources first: their seconds are their own.
        for needed in (*layer.below, *(layer.source_stage.layers if layer.source_stage else ())):
            self.folder(needed)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.parent.glob(".making-*"):
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch, step(layer.title):
            made = Path(scratch, "diff")
            made.mkdir(mode=0o755)
            makers[layer.kind](layer, made, Path(scratch))
            made.rename(folder)

    def _make_base(self, layer: Layer, made: Path, scratch: Path) -> None:
        made.rmdir()
        run(
            ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", "--format=directory"]
            + [f"--include={','.join(BASE_PACKAGES)}"]
            + [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
            + ["--dpkgopt=force-unsafe-io", SUITE, made],
            advice="Check that Debian's packages can be reached ('apt-get update') and run again.",
        )
        for volatile in ("var/cache", "var/log", "dev", "var/lib/apt/lists"):
            for entry in (made / volatile).iterdir() if (made / volatile).is_dir() else ():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        # apt wants these folders to exist.
        (made / "var/lib/apt/lists/partial").mkdir(parents=True, exist_ok=True)
        (made / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
        (made / "etc/resolv.conf").unlink(missing_ok=True)
        (made / "etc/hostname").unlink(missing_ok=True)

    def _make_copy(self, layer: Layer, made: Path, scratch: Path) -> None:
        into_folder = layer.target.endswith("/") or len(layer.sources) > 1
        for source in layer.sources:
            target = made / layer.target.lstrip("/")
            if layer.source_stage is not None:
                layers = [self.folder(below) for below in layer.source_stage.layers]
                found = merge_layers(layers, source, target)
                if not found:
                    raise ImageBuildError(f"no step of the stage makes {source}. Correct the COPY --from.")
            else:
                copy_from_context(Path(source), target, into_folder=into_folder)

    def _make_run(self, layer: Layer, made: Path, scratch: Path) -> None:
        lowers = [self.folder(below) for below in layer.below]
        variables, paths = machine_settings(os.environ)
        mounts = [(Path(path), path) for path in paths]
        for mount in layer.mounts:
            source = host_cache(mount)
            if source is not None:
                source.mkdir(parents=True, exist_ok=True)
                mounts.append((source, dict(part.partition("=")[::2] for part in mount.split(","))["target"]))
        temporary = scratch / "tmp"
        temporary.mkdir()
        temporary.chmod(0o1777)
        mounts.append((temporary, "/tmp"))
        missing = [target for _, target in mounts if not any((low / target.lstrip("/")).exists() for low in lowers)]
        script = chroot_script(lowers, made, scratch, mounts, set(paths))
        environment = {"DEBIAN_FRONTEND": "noninteractive", **layer.environment, **variables}
        listed = [f"{name}={value}" for name, value in environment.items()]
        run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh"),
                *("env", "-i", *listed, "/bin/sh", "-euc", layer.command),
            ],
            advice="The message is from a step of a Dockerfile: correct that step. (Local builds need root on Linux.)",
        )
        remove_mount_points(made, missing)


def chroot_script(
    lowers: list[Path], upper: Path, scratch: Path, mounts: list[tuple[Path, str]], read_only: Iterable[str]
) -> str:
    """Return a shell script that mounts the layers and runs its arguments inside them. Pure but for two folders."""
    root, work = scratch / "root", scratch / "work"
    root.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    stack = ":".join(str(low) for low in reversed(lowers))
    lines = [
        f"mount -t overlay overlay -o 'lowerdir={stack},upperdir={upper},workdir={work}' '{root}'",
        f"mkdir -p '{root}/proc' '{root}/dev'",
        f"mount --rbind /proc '{root}/proc'",
        f"mount --rbind /dev '{root}/dev'",
    ]
    for source, target in mounts:
        inside = f"{root}{target}"
        make = (
            f"mkdir -p '{inside}'"
            if source.is_dir()
            else f"mkdir -p '{PurePosixPath(inside).parent}'; touch '{inside}'"
        )
        lines.append(f"[ -e '{inside}' ] || {{ {make}; }}")
        lines.append(f"mount --bind '{source}' '{inside}'")
        if target in set(read_only):
            lines.append(f"mount -o remount,bind,ro '{inside}'")
    lines.append(f"exec chroot '{root}' \"$@\"")
    return "\n".join(lines)


def remove_mount_points(upper: Path, targets: Iterable[str]) -> None:
    """Remove the empty files and folders that only existed to be mounted on."""
    for target in targets:
        path = upper / target.lstrip("/")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def copy_from_context(source: Path, target: Path, *, into_folder: bool) -> None:
    """Copy as COPY does: a folder's content into the target, a file into or as the target; caches stay behind."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*IGNORED, "*.pyc"))
        for path in (target, *target.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        return
    destination = target / source.name if into_folder else target
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
    destination.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def merge_layers(layers: Iterable[Path], source: str, target: Path) -> bool:
    """Lay what several layers have below `source` over one another at `target`; return whether there was anything.

    Files become hard links: no byte is copied. Layers are never changed once they are made, so sharing is safe.
    """
    found = False
    for layer in layers:
        origin = layer / source.lstrip("/")
        if not origin.is_dir():
            continue
        found = True
        for folder, _, names in os.walk(origin):
            here = target / Path(folder).relative_to(origin)
            here.mkdir(parents=True, exist_ok=True)
            for name in (*names, *(link.name for link in Path(folder).iterdir() if link.is_symlink())):
                path, copied = Path(folder, name), here / name
                if not path.is_symlink() and not path.is_file():
                    # overlayfs marks a deleted file with a device node.
                    copied.unlink(missing_ok=True)
                    continue
                copied.unlink(missing_ok=True)
                os.link(path, copied, follow_symlinks=False)
    return found
