"""A FineTuneJob's spec and its model's config.json -> the estimate."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewright_api.estimate import Estimate, estimate_memory
from tunewright_api.estimate.memory import Memory
from tunewright_api.estimate.shape import read_shape
from tunewright_api.estimate.spec import read_settings
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.quantity import parse_quantity

GPU = "nvidia.com/gpu"


def estimate_job(spec: FineTuneJobSpec, config: Mapping[str, Any], *, gpu: bool = False) -> Estimate:
    """Memory per device of the job's training, and what its pods lack.

    A teacher, whose files are not here, is taken to be as large as the base model; `prepare` reads them.

    Args:
        spec: The job.
        config: config.json of the base model.
        gpu: Take each process to have a GPU even if resourcesPerNode asks for none.

    Raises:
        UnknownModelError: As `read_shape`.
    """
    gpus = int(parse_quantity((spec.resources_per_node or {}).get(GPU, 0)))
    on_node = spec.num_proc_per_node or gpus or 1
    shape = read_shape(config)
    settings = read_settings(
        spec.method,
        spec.hyperparameters,
        spec.distributed,
        processes=spec.num_nodes * on_node,
        gpu=gpu or gpus > 0,
        objective=spec.objective,
        teacher=shape,
    )
    estimate = estimate_memory(shape, settings)
    return replace(estimate, shortages=_shortages(spec, estimate.memory, on_node, gpu=settings.gpu))


def _shortages(spec: FineTuneJobSpec, memory: Memory, processes: int, *, gpu: bool) -> tuple[str, ...]:
    deepspeed = spec.distributed.deepspeed if spec.distributed else None
    nvme = deepspeed.nvme if deepspeed else None
    host = memory.host + memory.checkpoint + (0 if gpu else memory.total)
    places = (
        ("resourcesPerNode.memory", (spec.resources_per_node or {}).get("memory"), host),
        ("distributed.deepspeed.nvme.size", nvme.size if nvme else None, memory.disk),
    )
    return tuple(
        f"{field} is {given}, and the {processes} {'process' if processes == 1 else 'processes'} of a pod need about "
        f"{each * processes / 2**30:.1f}Gi: ask for more"
        for field, given, each in places
        if given is not None and parse_quantity(given) < each * processes
    )
