"""A FineTuneJob's spec and its model's config.json -> the estimate."""

from collections.abc import Mapping
from typing import Any

from tunewright_api.estimate import Estimate, estimate_memory
from tunewright_api.estimate.shape import read_shape
from tunewright_api.estimate.spec import read_settings
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.quantity import parse_quantity

GPU = "nvidia.com/gpu"


def estimate_job(spec: FineTuneJobSpec, config: Mapping[str, Any], *, gpu: bool = False) -> Estimate:
    """Memory per device of the job's training. A teacher, whose files are not here, is taken to be as large as the base
    model; `prepare` reads them.

    Args:
        spec: The job.
        config: config.json of the base model.
        gpu: Take each process to have a GPU even if resourcesPerNode asks for none.

    Raises:
        UnknownModelError: As `read_shape`.
    """
    gpus = int(parse_quantity((spec.resources_per_node or {}).get(GPU, 0)))
    processes = spec.num_nodes * (spec.num_proc_per_node or gpus or 1)
    shape = read_shape(config)
    settings = read_settings(
        spec.method,
        spec.hyperparameters,
        spec.distributed,
        processes=processes,
        gpu=gpu or gpus > 0,
        objective=spec.objective,
        teacher=shape,
    )
    return estimate_memory(shape, settings)
