"""Run the real supervisor with another vLLM: `run_server.py CONFIG COMMAND...`."""

import sys

from tunewright_server.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--config", sys.argv[1]], engine=sys.argv[2:]))
