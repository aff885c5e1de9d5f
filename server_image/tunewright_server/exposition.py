"""Prometheus' text format: put our labels on every sample of vLLM's metrics, and write the server's own. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/ is the format that is read and written here.
"""

import re
from collections.abc import Mapping

from tunewright_api.names import (
    METRIC_LABEL_NAMESPACE,
    METRIC_LABEL_REVISION,
    METRIC_LABEL_SERVICE,
    METRIC_LABEL_VERSION,
)
from tunewright_api.server_config import ServerIdentity

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The beginning of a sample: its name, and the brace that opens its labels if it has any (with the one that closes them
# if there are none).
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?P<open>\{[ \t]*(?P<empty>\})?)?")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"(?:[^"\\]|\\.)*"[ \t]*,?')


def identity_labels(identity: ServerIdentity) -> dict[str, str]:
    """The labels that say whose sample it is."""
    return {
        METRIC_LABEL_NAMESPACE: identity.namespace,
        METRIC_LABEL_SERVICE: identity.service,
        METRIC_LABEL_VERSION: identity.version,
        METRIC_LABEL_REVISION: identity.revision,
    }


def render_own(labels: Mapping[str, str], *, ready: bool, gpus: int) -> str:
    """The supervisor's own metrics."""
    text = _format(labels)
    return (
        "# HELP tunewright_server_ready Whether requests may be sent to this pod.\n"
        "# TYPE tunewright_server_ready gauge\n"
        f"tunewright_server_ready{{{text}}} {int(ready)}\n"
        "# HELP tunewright_server_gpus GPUs of this pod.\n"
        "# TYPE tunewright_server_gpus gauge\n"
        f"tunewright_server_gpus{{{text}}} {gpus}\n"
    )


def add_labels(exposition: str, labels: Mapping[str, str]) -> str:
    """The same metrics with these labels on every sample.

    A label that a sample already has under one of these names is kept as exported_NAME, as Prometheus does it.
    Comments, timestamps and exemplars stay as they are.
    """
    ours = _format(labels)
    # Only "\n" ends a line: a label's value may hold any other line separator of Unicode.
    return "\n".join(_label(line.lstrip(" \t"), ours, labels) for line in exposition.split("\n"))


def _label(line: str, ours: str, labels: Mapping[str, str]) -> str:
    sample = _SAMPLE.match(line)
    if sample is None:  # a comment, an empty line
        return line
    name, rest = sample["name"], line[sample.end() :]
    if not sample["open"]:
        return f"{name}{{{ours}}} {rest}"
    if sample["empty"]:
        return f"{name}{{{ours}}}{rest}"
    return f"{name}{{{ours},{_renamed(rest, labels)}"


def _renamed(rest: str, labels: Mapping[str, str]) -> str:
    """The labels of a sample and what follows them, without a second label of one of these names."""
    if not any(name in rest for name in labels):
        return rest
    parts, at = [], 0
    while found := _LABEL.match(rest, at):
        parts += ["exported_" * (found[1] in labels), rest[at : found.end()].lstrip()]
        at = found.end()
    return "".join(parts) + rest[at:]


def _format(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
