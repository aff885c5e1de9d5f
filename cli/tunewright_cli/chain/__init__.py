"""Objects -> the chain dataset, job, version, service: one value for the live screen, for JSON and for the docs."""

from tunewright_cli.chain.build import build_chain
from tunewright_cli.chain.find import AmbiguousError, Objects, find_focus
from tunewright_cli.chain.model import Chain

__all__ = ["AmbiguousError", "Chain", "Objects", "build_chain", "find_focus"]
