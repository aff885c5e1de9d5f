"""spec.distributed of a FineTuneJob: how several processes share the work."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from tunewright_api.base import (
    Model,
    ObjectName,
    Quantity,
    Rule,
)


class Ddp(Model):
    """Data parallelism: every process holds everything, and gradients are summed (torch's
    DistributedDataParallel)."""


class Offload(StrEnum):
    """Where DeepSpeed keeps what the device does not compute with at the moment."""

    NONE = "None"
    CPU = "CPU"
    NVME = "NVMe"


class NvmeVolume(Model):
    """Local disk of each training pod, empty at its start and removed with it."""

    size: Quantity = Field(
        description="Space of each pod, for example 800Gi. All pods together need 28 bytes per trained parameter of "
        "the optimizer, with the copies of a checkpoint, and 2 per parameter of the weights, 4 in FP32."
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="Class of the generic ephemeral volume, for example that of a local volume provisioner; an "
        "emptyDir, for nodes whose own disk is NVMe, if absent.",
    )


class DeepSpeed(Model):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054), with offloading (ZeRO-Offload, arXiv:2101.06840;
    ZeRO-Infinity, arXiv:2104.07857)."""

    cel: ClassVar = (
        Rule(
            "self.offloadOptimizer == 'None' || self.zeroStage >= 1",
            "deepspeed.offloadOptimizer moves what ZeRO shards: set zeroStage to 1, 2 or 3",
        ),
        Rule(
            "self.offloadParameters == 'None' || self.zeroStage == 3",
            "deepspeed.offloadParameters moves what ZeRO-3 shards: set zeroStage to 3",
        ),
        Rule(
            "self.offloadOptimizer != 'NVMe' || self.zeroStage == 3",
            "deepspeed.offloadOptimizer: NVMe works with ZeRO-3 only: set zeroStage to 3, or offload to CPU",
        ),
        Rule(
            "(self.offloadOptimizer == 'NVMe' || self.offloadParameters == 'NVMe') == has(self.nvme)",
            "deepspeed.nvme: {size: …} is the disk of offloadOptimizer: NVMe and offloadParameters: NVMe: write it "
            "with one of them, and only then",
        ),
    )

    zero_stage: Literal[0, 1, 2, 3] = Field(
        description="What all processes share: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights."
    )
    offload_optimizer: Offload = Field(
        default=Offload.NONE,
        description="Where optimizer states wait and are updated: None (on the device), CPU or NVMe.",
    )
    offload_parameters: Offload = Field(
        default=Offload.NONE,
        description="Where weights wait until their layer computes: None (on the device), CPU or NVMe.",
    )
    nvme: NvmeVolume | None = Field(default=None, description="The disk of what is offloaded to NVMe.")

    @property
    def offloads_to_nvme(self) -> bool:
        """Whether training pods need the disk."""
        return Offload.NVME in (self.offload_optimizer, self.offload_parameters)


class Sharding(StrEnum):
    """What FSDP divides among the processes while no layer needs it."""

    FULL = "Full"
    GRADIENTS_AND_OPTIMIZER = "GradientsAndOptimizer"


class Fsdp(Model):
    """Fully sharded data parallelism, PyTorch's FSDP2 (Zhao et al. 2023, arXiv:2304.11277; `fully_shard`)."""

    sharding: Sharding = Field(
        default=Sharding.FULL,
        description="Full gathers each layer's weights for forward and again for backward; GradientsAndOptimizer keeps "
        "them in between: faster, more memory.",
    )
    cpu_offload: bool = Field(
        default=False, description="Keep shards, gradients and optimizer states in CPU memory; update them there."
    )


class Pipeline(Model):
    """Pipeline parallelism, schedule 1F1B (Narayanan et al. 2019, PipeDream; arXiv:2006.09503): each stage holds a
    share of the layers. The micro batches of a step are gradientAccumulationSteps; a share of
    (stages - 1) / (gradientAccumulationSteps + stages - 1) of each step is idle time."""

    stages: int = Field(
        ge=2,
        le=128,
        description="Shares of the decoder layers. Each is held by processes / stages neighbouring processes, which "
        "read different records.",
    )


class Distributed(Model):
    """How more than one process shares the work: exactly one of the fields."""

    cel: ClassVar = (
        Rule(
            "[has(self.ddp), has(self.deepspeed), has(self.fsdp), has(self.pipeline)].filter(x, x).size() == 1",
            "distributed: write exactly one of `ddp: {}`, `deepspeed: {zeroStage: 0..3}`, `fsdp: {}` and "
            "`pipeline: {stages: 2}`",
        ),
    )

    ddp: Ddp | None = Field(default=None, description="Every process holds everything.")
    deepspeed: DeepSpeed | None = Field(default=None, description="Train with DeepSpeed ZeRO.")
    fsdp: Fsdp | None = Field(default=None, description="Train with PyTorch's FSDP2.")
    pipeline: Pipeline | None = Field(default=None, description="Divide the layers among the processes.")
