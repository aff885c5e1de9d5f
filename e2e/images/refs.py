"""The names of the three images. A name holds the key of the content, so a stale image cannot run under it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from e2e.images.builder import base_layer
from e2e.images.common import REPO, ImageBuildError
from e2e.images.dockerfile import parse
from e2e.images.plan import Planner, StagePlan

DOCKERFILES = {
    "operator": Path("operator/Dockerfile"),
    "trainer": Path("trainer_image/Dockerfile"),
    "server": Path("server_image/Dockerfile"),
}
REGISTRY = "docker.io"
"""What containerd and the kubelet put before a name without a registry."""


@dataclass(frozen=True)
class PlannedImage:
    """An image by its short name, its full reference, and the plan of its layers."""

    name: str
    reference: str
    plan: StagePlan


def accelerator() -> str:
    """Return cpu or cuda, from $ACCELERATOR; this machine's images are for CPUs unless it says otherwise."""
    chosen = os.environ.get("ACCELERATOR", "cpu")
    if chosen not in {"cpu", "cuda"}:
        raise ImageBuildError(f"ACCELERATOR is {chosen!r}. Set it to cpu or cuda.")
    return chosen


def plan_image(name: str, context: Path = REPO) -> PlannedImage:
    """Plan one image from the Dockerfile and the sources as they are now."""
    dockerfile = context / DOCKERFILES[name]
    planner = Planner(parse(dockerfile.read_text()), context, base_layer(), {"ACCELERATOR": accelerator()})
    plan = planner.image()
    return PlannedImage(name, f"tunewright/{name}:dev-{plan.key[:12]}", plan)


def image_refs() -> dict[str, str]:
    """Return operator, trainer and server -> the reference to write into manifests.

    Computed from the sources, without a build: `build` makes exactly these.
    """
    return {name: plan_image(name).reference for name in DOCKERFILES}
