"""Image build step: `python -m tunewright_server.warm DIRECTORY` fills a seed of vLLM's cache (see `cache`).

Optional and best effort: an architecture that is not in the seed is looked at when it is first loaded.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

# Causal language models that are often fine-tuned.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
    "SmolLM3ForCausalLM",
    "GraniteForCausalLM",
    "Olmo2ForCausalLM",
    "GPT2LMHeadModel",
)

log = logging.getLogger(__name__)


def warm(directory: str, architectures: Sequence[str] = ARCHITECTURES) -> int:
    """Write what vLLM remembers about each architecture into the directory; return how many it wrote."""
    os.environ["VLLM_CACHE_ROOT"] = directory
    registry = importlib.import_module("vllm.model_executor.models.registry")
    # vLLM looks in a second process to keep CUDA uninitialised. Nothing is served here: one process is faster.
    vars(registry)["_run_in_subprocess"] = lambda look: look()
    known = 0
    for name in architectures:
        try:
            registry.ModelRegistry.models[name].inspect_model_cls()
            known += 1
        except Exception as error:
            log.warning("%s is left out: %s", name, error)
    return known


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING)
    print(f"vLLM's cache knows {warm(sys.argv[1])} architectures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
