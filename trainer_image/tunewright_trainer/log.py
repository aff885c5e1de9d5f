"""Structured logs: one JSON object per line on stdout."""

import json
import logging
import math
import sys
import time
from typing import Any

LOGGER = logging.getLogger("tunewright")


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", …}` with the fields of `extra={"fields": {…}}` and of the process."""

    def __init__(self, **common: Any) -> None:
        super().__init__()
        self.common = common

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry: dict[str, Any] = {
            "time": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.common,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: _finite(value) for key, value in entry.items()}, ensure_ascii=False)


def setup(**common: Any) -> None:
    """Send every log record of this process to stdout as JSON; `common` fields go on every line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(**common))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOGGER.setLevel(logging.INFO)


def info(message: str, **fields: Any) -> None:
    """Log a message with structured fields."""
    LOGGER.info(message, extra={"fields": fields})


def warning(message: str, **fields: Any) -> None:
    """As `info`, for what needs somebody's attention."""
    LOGGER.warning(message, extra={"fields": fields})


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
