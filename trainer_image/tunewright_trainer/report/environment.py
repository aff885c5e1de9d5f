"""What a run ran on: processors, devices and the versions of what computes."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "deepspeed",
    "accelerate",
    "bitsandbytes",
    "liger-kernel",
    "tokenizers",
    "safetensors",
)


def describe_environment() -> dict[str, str]:
    """Names of things -> what they are, in reading order."""
    import torch

    found = {
        "Operating system": platform.platform(),
        "Python": sys.version.split()[0],
        "CPUs of this process": str(len(os.sched_getaffinity(0))),
        "Threads": str(torch.get_num_threads()),
        "Processes": os.environ.get("WORLD_SIZE", "1"),
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        found["GPU"] = f"{device.name}, {device.total_memory / 2**30:.1f} GiB"
        found["GPUs of this pod"] = str(torch.cuda.device_count())
        found["CUDA"] = str(torch.version.cuda)
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
