"""Structured logs: one JSON object a line, which names the Kubernetes object that the line is about."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_object: ContextVar[dict[str, str] | None] = ContextVar("object", default=None)


@contextmanager
def about(kind: str, namespace: str, name: str) -> Iterator[None]:
    """Every line logged inside names this object."""
    token = _object.set({"kind": kind, "namespace": namespace, "name": name})
    try:
        yield
    finally:
        _object.reset(token)


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", "kind", "namespace", "name", …, "exception"}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _object.get() or _kopf_object(record)
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: str) -> None:
    """JSON lines on stderr; the libraries below us speak only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("kopf", "kubernetes", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(level if level == "DEBUG" else logging.WARNING)


def _kopf_object(record: logging.LogRecord) -> dict[str, str]:
    """kopf's own per-object loggers carry a reference of the object."""
    ref = getattr(record, "k8s_ref", None) or {}
    return {key: ref[key] for key in ("kind", "namespace", "name") if ref.get(key)}
