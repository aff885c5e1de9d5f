"""`tunewright-trainer config`: the configuration of a run in the form that another launcher reads.

tunewright-trainer config accelerate --config config.json > accelerate.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tunewright_api.names import CONFIG_DIR, CONFIG_FILE, ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import config as configuration
from tunewright_trainer.accelerate_config import accelerate_config
from tunewright_trainer.deepspeed_config import deepspeed_config
from tunewright_trainer.errors import StageError


def render(launcher: str, config: TrainerConfig, device: str, machine_rank: int) -> str:
    """The file as JSON.

    Raises:
        StageError: INVALID_CONFIG for a run that this launcher does not start.
    """
    if launcher == "accelerate":
        return json.dumps(accelerate_config(config, device, machine_rank), indent=2)
    made = deepspeed_config(config, device)
    if made is None:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "the run does not use DeepSpeed: there is a file for accelerate only, or set distributed.deepspeed",
        )
    return json.dumps(made, indent=2)


def main(argv: Sequence[str]) -> int:
    """Print the file; the exit code."""
    parser = argparse.ArgumentParser(prog="tunewright-trainer config", description="Print a launcher's configuration.")
    parser.add_argument("launcher", choices=["accelerate", "deepspeed"], help="who reads the file")
    parser.add_argument("--config", type=Path, default=Path(CONFIG_DIR) / CONFIG_FILE, metavar="FILE")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="default: %(default)s")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="rank of the pod (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        config = configuration.load(arguments.config, TrainerConfig)
        print(render(arguments.launcher, config, arguments.device, arguments.machine_rank))
    except StageError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    return 0
