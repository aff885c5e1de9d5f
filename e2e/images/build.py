"""Build the images, load them into the cluster's containerd, or export them for another cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.images import ctr_command
from e2e.cluster.packages import ensure_packages
from e2e.cluster.paths import cache_root
from e2e.images.builder import NEEDED, Builder
from e2e.images.cleanup import remove_unused
from e2e.images.common import REPO, ImageBuildError, say, step
from e2e.images.oci import Image, store_image, write_archive
from e2e.images.plan import Layer
from e2e.images.refs import DOCKERFILES, REGISTRY, PlannedImage, plan_image


def builder() -> Builder:
    """Return the builder on the project's cache."""
    return Builder(cache_root() / "images")


def build_image(planned: PlannedImage, maker: Builder) -> Image:
    """Make the layers that are missing and write configuration and manifest."""
    blobs = [maker.blob(layer) for layer in planned.plan.layers]
    config = {
        "Env": [f"{name}={value}" for name, value in planned.plan.environment.items()],
        "Entrypoint": list(planned.plan.entrypoint),
        "User": planned.plan.user,
        "WorkingDir": planned.plan.workdir,
    }
    titles = [layer.title for layer in planned.plan.layers]
    return store_image(f"{REGISTRY}/{planned.reference}", blobs, titles, config, maker.layout)


def build(names: Iterable[str]) -> list[Image]:
    """Build images by short name; what is cached is not made again."""
    if os.geteuid() != 0:
        raise ImageBuildError(
            "building images without a container engine needs root. Run as root, or build the Dockerfiles with "
            "'docker build' as their first lines say, and run with CLUSTER=kind."
        )
    try:
        ensure_packages(NEEDED, say)
    except ClusterError as error:
        raise ImageBuildError(str(error)) from error
    # COPY names paths in the repository.
    os.chdir(REPO)
    maker = builder()
    images = []
    for name in names:
        planned = plan_image(name)
        image = build_image(planned, maker)
        say(f"  {planned.reference}: {sum(layer.unpacked_size for layer in image.layers) / 1e9:.2f} GB")
        images.append(image)
    return images


def load(images: Sequence[Image], socket: Path) -> None:
    """Import images into containerd, without the layers that it has."""
    present = set(_ctr(socket, "images", "list", "--quiet").split())
    wanted = [image for image in images if image.name not in present]
    if not wanted:
        say("  all images are loaded already")
        return
    held = frozenset(_ctr(socket, "content", "list", "--quiet").split())
    with step(f"load {len(wanted)} images into containerd"):
        process = subprocess.Popen(
            ctr_command(socket, "images", "import", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            sent = write_archive(wanted, builder().layout, process.stdin, skip=held)
            process.stdin.close()
        except BrokenPipeError:
            sent = 0
        output = process.stdout.read().decode(errors="replace")
        if process.wait() != 0:
            raise ImageBuildError(
                f"containerd refused the images: {output}\n`python -m e2e.cluster status` names its log."
            )
    say(f"  sent {sent / 1e9:.2f} GB")


def export(images: Sequence[Image], target: Path) -> None:
    """Write images into one OCI archive, for `kind load image-archive`, `docker load` or `skopeo copy`."""
    with step(f"export to {target}"), target.open("wb") as stream:
        write_archive(images, builder().layout, stream)


def prune() -> None:
    """Remove what no image that could be built now needs: layers of earlier code and earlier requirements."""
    maker = builder()
    keep: set[str] = set()

    def visit(layers: Iterable[Layer]) -> None:
        for layer in layers:
            if layer.key not in keep:
                keep.add(layer.key)
                visit(layer.below)
                visit(layer.source_stage.layers if layer.source_stage else ())

    for name in DOCKERFILES:
        visit(plan_image(name).plan.layers)
    remove_unused(maker, keep)


def _ctr(socket: Path, *arguments: str) -> str:
    done = subprocess.run(ctr_command(socket, *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageBuildError(f"containerd at {socket} does not answer: {done.stderr}\nStart the cluster first.")
    return done.stdout
