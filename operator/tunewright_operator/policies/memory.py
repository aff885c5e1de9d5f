"""A job whose training cannot fit into the memory of its GPUs is not queued for them."""

import re

from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.finetunejob_status import EstimateStatus
from tunewright_api.results import MemoryEstimate
from tunewright_operator.policies.failure import Failure

# Labels that NVIDIA's GPU feature discovery puts on nodes: MiB of a GPU, and a name such as NVIDIA-A100-SXM4-80GB.
_MEMORY = "nvidia.com/gpu.memory"
_PRODUCT = "nvidia.com/gpu.product"
_SIZE = re.compile(r"-(\d{1,4})GB\b")
_GIB = 2**30


def gpu_memory(spec: FineTuneJobSpec) -> int | None:
    """Bytes of each GPU, where scheduling.nodeSelector fixes them."""
    selector = (spec.scheduling.node_selector if spec.scheduling else None) or {}
    if selector.get(_MEMORY, "").isdigit():
        return int(selector[_MEMORY]) * 2**20
    size = _SIZE.search(selector.get(_PRODUCT, ""))
    return int(size[1]) * _GIB if size else None


def judge_memory(spec: FineTuneJobSpec, estimate: MemoryEstimate) -> EstimateStatus:
    """The estimate next to what is known of the GPUs."""
    known = gpu_memory(spec)
    return EstimateStatus(
        memory_per_device=_text(estimate.device_bytes),
        gpu_memory=None if known is None else _text(known),
        fits=None if known is None else estimate.device_bytes <= known,
    )


def memory_failure(spec: FineTuneJobSpec, estimate: MemoryEstimate) -> Failure | None:
    """The failure of a job that needs more than its GPUs have."""
    known = gpu_memory(spec)
    if known is None or estimate.device_bytes <= known:
        return None
    helps = "; ".join(estimate.advice) or "use more GPUs, or larger ones"
    return Failure(
        "DoesNotFit",
        f"training needs about {_text(estimate.device_bytes)} on each GPU, and scheduling.nodeSelector asks for GPUs "
        f"of {_text(known)}. Nothing was queued for them. What would help most: {helps}. What to do: change the "
        "settings, or ask for larger GPUs, in a FineTuneJob with a new name",
    )


def _text(count: int) -> str:
    return f"{count / _GIB:.1f}Gi"
