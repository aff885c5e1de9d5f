"""Start-up time: keep out what the libraries import only because it is installed."""

import sys


def skip(*names: str) -> None:
    """Let packages look as if they were not installed, unless they are imported already.

    With None in sys.modules an import fails and importlib.util.find_spec finds nothing, which is how transformers,
    accelerate and peft ask. Measured on one core: datasets (pandas, pyarrow) 2 to 3 s, deepspeed 2 s.
    """
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
