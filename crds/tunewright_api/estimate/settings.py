"""What of a job decides about its memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tunewright_api.estimate.shape import ModelShape


class Train(StrEnum):
    """What is trained."""

    FULL = "full"
    LORA = "lora"
    QLORA = "qlora"
    PREFIX = "prefix"
    ADAPTER = "adapter"


class Shard(StrEnum):
    """What data-parallel processes share instead of holding a copy each."""

    NOTHING = "nothing"
    ZERO_0 = "zero-0"
    ZERO_1 = "zero-1"
    ZERO_2 = "zero-2"
    ZERO_3 = "zero-3"
    FSDP_GRADIENTS = "fsdp-gradients"
    FSDP = "fsdp"

    @property
    def optimizer(self) -> bool:
        """Whether optimizer states are shared."""
        return self not in {Shard.NOTHING, Shard.ZERO_0}

    @property
    def gradients(self) -> bool:
        """Whether gradients are shared."""
        return self.optimizer and self is not Shard.ZERO_1

    @property
    def weights(self) -> bool:
        """Whether weights are shared while no layer computes with them."""
        return self in {Shard.ZERO_3, Shard.FSDP_GRADIENTS, Shard.FSDP}

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed holds the weights."""
        return self.value.startswith("zero")

    @property
    def fsdp(self) -> bool:
        """Whether FSDP2 holds the weights."""
        return self.value.startswith("fsdp")


class States(StrEnum):
    """What the optimizer remembers of each weight."""

    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"


@dataclass(frozen=True)
class Settings:
    """One run, as far as its memory depends on it.

    Attributes:
        train: What is trained.
        rank: Rank of the LoRA matrices.
        targets: Names of the matrices that get LoRA matrices; all of a layer if empty.
        dora: Whether LoRA also trains a magnitude for each output (Liu et al. 2024, arXiv:2402.09353).
        virtual_tokens: Trained positions per layer of prefix tuning and LLaMA-Adapter.
        adapter_layers: Layers that LLaMA-Adapter changes, the last ones; all if 0.
        double_quantization: Whether QLoRA quantises the constants, too.
        projection: Hidden width of the network that makes a trained prefix; 0 without one.
        freeze: Patterns of parameter names that full training leaves as they are, as in method.full.freeze.
        half: Whether 16-bit numbers (or fp8 with 16-bit weights) are computed with.
        states: What the optimizer remembers.
        micro_batch: Records of a micro batch, or packed rows.
        sequence: Tokens of a record.
        padded: Whether rows of a micro batch differ in length.
        accumulation: Micro batches per process and step.
        checkpointing: Whether activations are computed again in the backward pass.
        processes: Processes that hold a copy of the model together (with pipelining, of a stage).
        shard: What they share.
        pipeline: Stages that the layers are divided into.
        offload_optimizer: Whether optimizer states, and DeepSpeed's gradients with them, live in the host's memory.
        offload_parameters: Whether the shards of weights do, too.
        nvme_optimizer: Whether offloaded optimizer states live on a disk instead, DeepSpeed's gradients with them.
        nvme_parameters: Whether offloaded weights do.
        eager_attention: Whether attention is computed with the whole matrix of scores in memory.
        gpu: Whether the device is a GPU.
        pairs: Whether a record is a pair of answers (DPO): two rows.
        ewc: Whether trained weights are held near where they were.
        contrastive: Whether hidden states are compared with each other.
        teacher: The model that is imitated.
    """

    train: Train = Train.FULL
    rank: int = 16
    targets: frozenset[str] = frozenset()
    dora: bool = False
    virtual_tokens: int = 0
    adapter_layers: int = 0
    double_quantization: bool = True
    projection: int = 0
    freeze: tuple[str, ...] = ()
    half: bool = True
    states: States = States.ADAMW
    micro_batch: int = 1
    sequence: int = 1024
    padded: bool = False
    accumulation: int = 1
    checkpointing: bool = False
    processes: int = 1
    shard: Shard = Shard.NOTHING
    pipeline: int = 1
    offload_optimizer: bool = False
    offload_parameters: bool = False
    nvme_optimizer: bool = False
    nvme_parameters: bool = False
    eager_attention: bool = False
    gpu: bool = True
    pairs: bool = False
    ewc: bool = False
    contrastive: bool = False
    teacher: ModelShape | None = None

    @property
    def rows(self) -> int:
        """Rows of a micro batch."""
        return self.micro_batch * (2 if self.pairs else 1)

    @property
    def low_rank(self) -> bool:
        """Whether LoRA matrices are trained."""
        return self.train in {Train.LORA, Train.QLORA}

    @property
    def keeps_gradients(self) -> bool:
        """Whether all gradients are there when a backward pass begins.

        They are where several backward passes add up, and in the buckets that DDP allocates once.
        """
        ddp = self.shard is Shard.NOTHING and self.pipeline == 1 and self.processes > 1
        return self.accumulation > 1 or self.ewc or ddp

    @property
    def autocast(self) -> bool:
        """Whether fp32 weights are cast per operation, instead of being held in 16 bits by DeepSpeed."""
        return self.half and not self.shard.deepspeed


def width(settings: Settings) -> int:
    """Bytes of a number that layers compute with."""
    return 2 if settings.half else 4
