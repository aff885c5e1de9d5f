"""Build the operator's, trainer's and server's images and the demo's model, without Docker or a registry.

python -m e2e.images build [operator|trainer|server|all ...] [--into SOCKET] [--export FILE]
python -m e2e.images list       the references that the current sources have
python -m e2e.images model      the demo's base model, in the cache
python -m e2e.images extensions DeepSpeed's extensions for NVMe disks, in the cache
python -m e2e.images lock       write requirements/*.txt anew
python -m e2e.images prune      forget layers of earlier sources
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from e2e.images import build as building
from e2e.images.common import ImageBuildError, say
from e2e.images.extensions import build_extensions
from e2e.images.lock import lock
from e2e.images.model import build_model
from e2e.images.refs import DOCKERFILES, image_refs


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    root = argparse.ArgumentParser(prog="python -m e2e.images", description="Images and model for a local cluster.")
    commands = root.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what changed")
    build.add_argument("images", nargs="*", default="all", choices=["all", *DOCKERFILES], help="default: all")
    build.add_argument("--into", type=Path, metavar="SOCKET", help="load them into the containerd at this socket")
    build.add_argument("--export", type=Path, metavar="FILE", help="write them into one OCI archive")
    commands.add_parser("list", help="print the references that the current sources have")
    commands.add_parser("model", help="put the demo's base model into the cache and print its folder").add_argument(
        "--force", action="store_true", help="convert it again"
    )
    commands.add_parser("extensions", help="compile what DeepSpeed needs for NVMe disks and print its folder")
    commands.add_parser("lock", help="write requirements/*.txt anew")
    commands.add_parser("prune", help="forget the layers of earlier sources")
    return root


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = parser().parse_args(argv)
    try:
        match options.command:
            case "build":
                chosen = list(DOCKERFILES) if "all" in options.images else list(dict.fromkeys(options.images))
                images = building.build(chosen)
                if options.into:
                    building.load(images, options.into)
                if options.export:
                    building.export(images, options.export)
            case "list":
                for name, reference in image_refs().items():
                    print(f"{name} {reference}")
            case "model":
                print(build_model(force=options.force))
            case "extensions":
                print(build_extensions())
            case "lock":
                lock()
            case "prune":
                building.prune()
    except ImageBuildError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
