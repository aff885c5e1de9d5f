"""DeepSpeed's extension async_io, with which it reads and writes a disk: compiled into the image, else at start."""

import importlib
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

PACKAGE = "deepspeed_extensions"
"""Where `python -m tunewright_trainer.parallel.compile_async_io` puts the extensions."""


def load_async_io(builder: Any) -> None:
    """Make DeepSpeed find its extension.

    Args:
        builder: DeepSpeed's, of the extension; it compiles at start what the image has not.

    Raises:
        StageError: INVALID_CONFIG where the extension is not there and cannot be compiled.
    """
    from deepspeed.ops.op_builder import PinMemoryBuilder
    from deepspeed.ops.op_builder.builder import OpBuilder

    try:
        # The one calls functions of the other, which `load` makes visible to it.
        OpBuilder._loaded_ops["pin_memory"] = importlib.import_module(f"{PACKAGE}.pin_memory_op")
        PinMemoryBuilder().load()
        OpBuilder._loaded_ops["async_io"] = importlib.import_module(f"{PACKAGE}.async_io_op")
    except ModuleNotFoundError:
        if builder.is_compatible(verbose=False):
            return
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "distributed.deepspeed: offloading to NVMe needs DeepSpeed's extension async_io, which this image neither "
            "has nor can compile (libaio-dev, g++): use an image that has it, or offload to CPU",
        ) from None
