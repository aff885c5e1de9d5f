"""`tunewright-server [--config FILE]`: serve the artifact of the configuration until SIGTERM.

Exit code 0 after a drain, else one of tunewright_api.names.ExitCode. The termination log tells why.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tunewright_api.names import CONFIG_DIR, CONFIG_FILE, ExitCode
from tunewright_server import termination
from tunewright_server.arguments import ENGINE_MODULE
from tunewright_server.config import check_device, load_config
from tunewright_server.failures import ServerError
from tunewright_server.settings import read_settings
from tunewright_server.supervisor import Supervisor

ENGINE = (sys.executable, "-m", ENGINE_MODULE)

log = logging.getLogger("tunewright_server")


def main(argv: Sequence[str] | None = None, engine: Sequence[str] = ENGINE) -> int:
    """Run the server and return its exit code. `engine` is the command that starts vLLM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s tunewright-server: %(message)s")
    parser = argparse.ArgumentParser(prog="tunewright-server", description="Serve a verified model with vLLM.")
    parser.add_argument("--config", type=Path, default=Path(CONFIG_DIR) / CONFIG_FILE, metavar="FILE")
    options = parser.parse_args(argv)
    try:
        message = asyncio.run(_serve(options.config, engine))
    except ServerError as error:
        failure = error
    except Exception as error:
        log.exception("the supervisor failed")
        failure = ServerError(ExitCode.INTERNAL, f"the supervisor failed: {type(error).__name__}: {error}")
    else:
        log.info("%s", message)
        termination.write(termination.succeeded(message))
        return ExitCode.OK
    log.error("%s (exit code %d, %s)", failure.message, failure.code, failure.code.name)
    termination.write(termination.failed(failure))
    return failure.code


async def _serve(path: Path, engine: Sequence[str]) -> str:
    config = load_config(path)
    check_device(config, os.environ)
    return await Supervisor(config, read_settings(os.environ), engine, os.environ).run()


if __name__ == "__main__":
    sys.exit(main())
