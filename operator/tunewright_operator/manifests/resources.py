"""What the pods of each stage ask for, from resourcesPerNode."""

from collections.abc import Mapping
from typing import Any

from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.names import Stage
from tunewright_api.quantity import parse_quantity

Manifest = dict[str, Any]

GPU = "nvidia.com/gpu"
# What a stage on one pod keeps of the node's resources; devices are asked for apart.
_COMMON = ("cpu", "memory", "ephemeral-storage")


def gpus_per_node(resources: Mapping[str, int | str] | None) -> int:
    """GPUs that each pod gets."""
    return int(parse_quantity((resources or {}).get(GPU, 0)))


def processes_per_node(spec: FineTuneJobSpec) -> int:
    """numProcPerNode, or one process per GPU, or one."""
    return spec.num_proc_per_node or max(gpus_per_node(spec.resources_per_node), 1)


def stage_resources(spec: FineTuneJobSpec, stage: Stage) -> Manifest:
    """Requests equal limits. Only training gets all devices; evaluate and export load the model on one GPU."""
    resources: dict[str, int | str] = dict(spec.resources_per_node or {})
    if stage is not Stage.TRAIN:
        gpus = min(gpus_per_node(resources), 1) if stage in {Stage.EVALUATE, Stage.EXPORT} else 0
        resources = {name: resources[name] for name in _COMMON if name in resources}
        resources |= {GPU: 1} if gpus else {}
    return {"requests": resources, "limits": resources} if resources else {}


def threads_per_process(spec: FineTuneJobSpec, stage: Stage) -> int | None:
    """OMP_NUM_THREADS: the CPUs of a pod shared by its processes; None where no CPU is asked for."""
    cpus = (spec.resources_per_node or {}).get("cpu")
    if cpus is None:
        return None
    processes = processes_per_node(spec) if stage is Stage.TRAIN else 1
    return max(int(parse_quantity(cpus) / processes), 1)
