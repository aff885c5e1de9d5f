"""Read the part of the Dockerfile language that this project's Dockerfiles use. Pure.

The Dockerfiles are the truth about the images, for Docker, buildah and for our own builder alike. What this parser does
not know it refuses, so that nothing is built differently in silence.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from e2e.images.common import ImageBuildError

KNOWN = ("ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a stage: COPY --from=x a b is ("COPY", {"from": ("x",)}, "a b")."""

    keyword: str
    value: str
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One FROM with what follows it; the last stage of a file is the image."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed file: the defaults of its global ARGs, and its stages in order."""

    arguments: Mapping[str, str]
    stages: tuple[Stage, ...]

    @property
    def image(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]

    def stage(self, name: str) -> Stage | None:
        """Return a stage by its name; None when this is no stage of the file (so it is an image)."""
        return next((stage for stage in self.stages if stage.name == name), None)


def logical_lines(text: str) -> list[str]:
    """Join continued lines and drop comments and empty lines, as Docker does."""
    lines: list[str] = []
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        lines.append((pending + line).strip())
        pending = ""
    return lines


def expand(value: str, variables: Mapping[str, str]) -> str:
    """Replace $NAME and ${NAME}; an unknown name becomes empty, as in Docker."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables.get(match[1] or match[2], ""), value)


def assignments(value: str) -> list[tuple[str, str]]:
    """Split the value of an ENV or ARG into (name, value); a name alone has the value ''."""
    pairs = (word.partition("=") for word in shlex.split(value))
    return [(name, content) for name, _, content in pairs]


def words(instruction: Instruction) -> list[str]:
    """Return the words of an instruction in exec form (JSON) or split at spaces."""
    if instruction.value.startswith("["):
        return [str(word) for word in json.loads(instruction.value)]
    return shlex.split(instruction.value)


def parse_instruction(line: str) -> Instruction:
    """Split one logical line into keyword, flags and value."""
    keyword, _, rest = line.partition(" ")
    keyword, rest = keyword.upper(), rest.strip()
    flags: dict[str, tuple[str, ...]] = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        flags[match[1]] = (*flags.get(match[1], ()), match[2])
        rest = rest[match.end() :]
    return Instruction(keyword, rest, flags)


def parse(text: str) -> Dockerfile:
    """Parse a Dockerfile.

    Raises:
        ImageBuildError: The file uses an instruction that the local builder does not know.
    """
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for line in logical_lines(text):
        instruction = parse_instruction(line)
        if instruction.keyword == "FROM":
            base, _, name = re.sub(r"\s+AS\s+", " ", instruction.value, flags=re.IGNORECASE).partition(" ")
            stages.append((name or f"stage-{len(stages)}", base, []))
        elif instruction.keyword not in KNOWN:
            raise ImageBuildError(
                f"the local builder does not know {instruction.keyword}. Write the step with {', '.join(KNOWN)}, "
                "or teach e2e/images/dockerfile.py."
            )
        elif stages:
            stages[-1][2].append(instruction)
        elif instruction.keyword == "ARG":
            arguments.update(assignments(instruction.value))
        else:
            raise ImageBuildError(f"{instruction.keyword} stands before the first FROM. Move it below.")
    return Dockerfile(arguments, tuple(Stage(name, base, tuple(body)) for name, base, body in stages))
