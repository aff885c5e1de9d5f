"""Start-up time: keep out what the libraries import only because it is installed."""

import sys

from tunewright_api.hyperparameters import Optimizer
from tunewright_api.trainer_config import TrainerConfig


def skip(*names: str) -> None:
    """Let packages look as if they were not installed, unless they are imported already.

    With None in sys.modules an import fails and importlib.util.find_spec finds nothing, which is how transformers,
    accelerate and peft ask.
    """
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def unused(config: TrainerConfig) -> list[str]:
    """Packages that transformers, accelerate and peft would import in a worker, and that this run has no use for.

    Measured on one core, in seconds of CPU: datasets (pandas, pyarrow) 2 to 3, deepspeed 2, scipy 1, boto3 0.5,
    bitsandbytes 0.5, and 3 more if peft is imported.
    """
    names = ["datasets", "scipy", "boto3"]
    if config.distributed is None or config.distributed.deepspeed is None:
        names.append("deepspeed")
    if config.method.qlora is None and config.hyperparameters.optimizer is Optimizer.ADAMW:
        names.append("bitsandbytes")
    return names
