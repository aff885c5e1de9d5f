"""`python -m tunewright_operator`: everything is set by TUNEWRIGHT_* variables (see config.py)."""

import asyncio
import os
import sys

from tunewright_operator.config import ConfigError, OperatorConfig
from tunewright_operator.handlers.runtime import run
from tunewright_operator.log import set_up_logging


def main() -> int:
    """Run the operator; returns the exit status."""
    try:
        config = OperatorConfig.from_env(os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 64
    set_up_logging(config.log_level)
    asyncio.run(run(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
