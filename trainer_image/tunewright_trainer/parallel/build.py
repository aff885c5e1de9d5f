"""spec.distributed -> the strategy."""

import torch

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.precision import autocast_dtype, scales_loss
from tunewright_trainer.processes import Processes


def build_strategy(config: TrainerConfig, processes: Processes) -> Strategy:
    """The strategy that spec.distributed asks for; made before the model.

    Raises:
        StageError: INVALID_CONFIG where this image cannot offload to NVMe.
    """
    dtype = autocast_dtype(config)
    cast = casting(processes.device, getattr(torch, dtype) if dtype else None)
    distributed = config.distributed
    if distributed is None:
        from tunewright_trainer.parallel.single import Single

        return Single(processes.device, cast, scales_loss=scales_loss(config))
    if distributed.ddp is not None:
        from tunewright_trainer.parallel.ddp import DataParallel

        return DataParallel(processes, cast, scales_loss=scales_loss(config))
    if distributed.deepspeed is not None:
        from tunewright_trainer.deepspeed_config import deepspeed_config

        configuration = deepspeed_config(config, processes.device.type)
        assert configuration is not None
        if distributed.deepspeed.offloads_to_nvme:
            from tunewright_trainer.parallel.zero_nvme import ZeroNvme

            return ZeroNvme(processes, configuration)
        from tunewright_trainer.parallel.zero import Zero

        return Zero(processes, configuration)
    if distributed.fsdp is not None:
        from tunewright_trainer.parallel.fsdp import FullySharded

        return FullySharded(processes, distributed.fsdp, getattr(torch, dtype) if dtype else None)
    assert distributed.pipeline is not None
    from tunewright_trainer.parallel.pipeline import PipelineParallel

    return PipelineParallel(processes, distributed.pipeline.stages, cast)
