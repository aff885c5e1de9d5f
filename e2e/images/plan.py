"""From a Dockerfile to the layers that it needs, each with a key that names its content. Pure but for reading sources.

A layer's key is a hash over everything that decides its content: the layers below, the command, its variables, the
copied files. Same key, same content: so a key is the file name in the cache, and the key of an image is its tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from e2e.images.common import ImageBuildError, content_key, file_digest
from e2e.images.dockerfile import Dockerfile, Instruction, Stage, assignments, expand, words

IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")
BUILDER_VERSION = "1"
"""Raise it when the builder starts to make other layers from the same steps."""


@dataclass(frozen=True)
class Layer:
    """One step that changes files. `kind` is base, run or copy."""

    kind: str
    key: str
    title: str
    below: tuple[Layer, ...] = ()
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    target: str = ""
    source_stage: StagePlan | None = None


@dataclass(frozen=True)
class StagePlan:
    """The layers of one stage and what its image's configuration says."""

    layers: tuple[Layer, ...]
    environment: Mapping[str, str]
    user: str = ""
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A key over the files and the configuration."""
        parts = [layer.key for layer in self.layers]
        parts += [repr(sorted(self.environment.items())), self.user, self.workdir, repr(self.entrypoint)]
        return content_key(*parts)


def tree_files(path: Path) -> Iterator[Path]:
    """Yield the files below a path (or the file itself) in a fixed order, without caches."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name not in IGNORED and child.suffix != ".pyc":
                yield from tree_files(child)
    else:
        yield path


def tree_digest(root: Path, source: str) -> str:
    """Return a digest over the names, contents and executable bits of what a COPY would take."""
    path = root / source
    if not path.exists():
        raise ImageBuildError(f"{source} does not exist in {root}. Write it first, or correct the COPY.")
    digest = hashlib.sha256()
    for file in tree_files(path):
        executable = bool(file.stat().st_mode & 0o100)
        digest.update(f"{file.relative_to(path)}\0{executable}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()


class Planner:
    """Plans the stages of one Dockerfile for one set of build arguments."""

    def __init__(self, dockerfile: Dockerfile, context: Path, base: Layer, arguments: Mapping[str, str]) -> None:
        """Plan with `base` in place of the image that BASE_IMAGE names."""
        self.dockerfile = dockerfile
        self.context = context
        self.base = base
        self.arguments = arguments
        self.plans: dict[str, StagePlan] = {}

    def image(self) -> StagePlan:
        """Plan the last stage."""
        return self.plan(self.dockerfile.image)

    def plan(self, stage: Stage) -> StagePlan:
        """Plan a stage and, first, those that it builds on."""
        if stage.name not in self.plans:
            self.plans[stage.name] = self._plan(stage)
        return self.plans[stage.name]

    def _parent(self, stage: Stage) -> StagePlan:
        if stage.base == "${BASE_IMAGE}":
            return StagePlan(layers=(self.base,), environment={})
        parent = self.dockerfile.stage(stage.base)
        if parent is None:
            raise ImageBuildError(f"FROM {stage.base} is neither ${{BASE_IMAGE}} nor a stage. Name one of them.")
        return self.plan(parent)

    def _plan(self, stage: Stage) -> StagePlan:
        parent = self._parent(stage)
        layers, environment = list(parent.layers), dict(parent.environment)
        user, workdir, entrypoint = parent.user, parent.workdir, parent.entrypoint
        arguments: dict[str, str] = self._inherited_arguments(stage)
        for instruction in stage.instructions:
            variables = {**arguments, **environment}
            match instruction.keyword:
                case "ARG":
                    for name, default in assignments(instruction.value):
                        fallback = self.dockerfile.arguments.get(name, expand(default, variables))
                        arguments[name] = self.arguments.get(name, fallback)
                case "ENV":
                    environment |= {name: expand(text, variables) for name, text in assignments(instruction.value)}
                case "RUN":
                    layers.append(self._run(instruction, tuple(layers), variables))
                case "COPY":
                    layers.append(self._copy(instruction, variables))
                case "USER":
                    user = expand(instruction.value, variables)
                case "WORKDIR":
                    workdir = expand(instruction.value, variables)
                case "ENTRYPOINT":
                    entrypoint = tuple(words(instruction))
        return StagePlan(tuple(layers), environment, user, workdir, entrypoint)

    def _inherited_arguments(self, stage: Stage) -> dict[str, str]:
        """Return the ARGs that the parent stages declared: a stage built FROM another sees them in Docker as well."""
        parent = self.dockerfile.stage(stage.base)
        if parent is None:
            return {}
        known = self._inherited_arguments(parent)
        for instruction in parent.instructions:
            if instruction.keyword == "ARG":
                for name, default in assignments(instruction.value):
                    known[name] = self.arguments.get(name, self.dockerfile.arguments.get(name, default))
        return known

    def _run(self, instruction: Instruction, below: tuple[Layer, ...], variables: Mapping[str, str]) -> Layer:
        mounts = instruction.flags.get("mount", ())
        parts = ["run", BUILDER_VERSION, instruction.value, repr(sorted(variables.items())), repr(mounts)]
        return Layer(
            kind="run",
            key=content_key(*parts, *(layer.key for layer in below)),
            title=f"RUN {instruction.value[:60]}",
            below=below,
            command=instruction.value,
            environment=dict(variables),
            mounts=mounts,
        )

    def _copy(self, instruction: Instruction, variables: Mapping[str, str]) -> Layer:
        *sources, target = (expand(word, variables) for word in words(instruction))
        origin = instruction.flags.get("from", ("",))[0]
        source_stage = None
        if origin:
            stage = self.dockerfile.stage(origin)
            if stage is None:
                raise ImageBuildError(f"COPY --from={origin} names no stage of the file. Name a stage.")
            source_stage = self.plan(stage)
            digests = [layer.key for layer in source_stage.layers]
        else:
            digests = [tree_digest(self.context, source) for source in sources]
        # The layers below stay out of the key: what is copied does not depend on them.
        return Layer(
            kind="copy",
            key=content_key("copy", BUILDER_VERSION, repr(sources), target, *digests),
            title=f"COPY {' '.join([f'--from={origin}'] * bool(origin) + sources)} {target}",
            sources=tuple(sources),
            target=str(PurePosixPath(target)) + ("/" if target.endswith("/") else ""),
            source_stage=source_stage,
        )
