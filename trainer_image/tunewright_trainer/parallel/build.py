"""spec.distributed -> the strategy."""

import torch

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.precision import autocast_dtype, scales_loss
from tunewright_trainer.processes import Processes


def build_strategy(config: TrainerConfig, processes: Processes) -> Strategy:
    """The strategy that spec.distributed asks for; made before the model.

    Raises:
        StageError: INVALID_CONFIG for several processes that nothing tells to work together.
    """
    dtype = autocast_dtype(config)
    cast = casting(processes.device, getattr(torch, dtype) if dtype else None)
    distributed = config.distributed
    if distributed is None:
        if config.rendezvous.nodes * config.rendezvous.processes_per_node > 1:
            raise StageError(
                ExitCode.INVALID_CONFIG,
                "several processes need spec.distributed: add `distributed: {ddp: {}}`, or set numNodes and "
                "numProcPerNode to 1",
            )
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
    if scales_loss(config):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "distributed.fsdp and distributed.pipeline compute in BF16 or FP32: set hyperparameters.precision to one "
            "of them, or use ddp or deepspeed",
        )
    if distributed.fsdp is not None:
        from tunewright_trainer.parallel.fsdp import FullySharded

        return FullySharded(processes, distributed.fsdp, getattr(torch, dtype) if dtype else None)
    assert distributed.pipeline is not None
    from tunewright_trainer.parallel.pipeline import PipelineParallel

    return PipelineParallel(processes, distributed.pipeline.stages, cast)
