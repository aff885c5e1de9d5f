"""Model FLOPs utilisation: what a run computes, by the model's formula, over what its devices could. Pure.

Per trained token a forward pass costs 2 FLOPs for each weight of a matrix product (a multiplication and an addition),
the gradient with respect to the activations as many, and that of the weights as many again for those that are
trained (Kaplan et al. 2020, arXiv:2001.08361, section 2.1: 6N where all are). Attention adds 12 L H Q T for L layers,
H heads of size Q and T tokens of context (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B; the causal half
that is skipped is counted, recomputation by gradient checkpointing is not).
"""

from dataclasses import dataclass

from tunewright_trainer.steps import StepRecord

# Dense tensor-core FLOP/s in BF16 (FP16 for those without), from NVIDIA's data sheets; the first name that the
# device's name contains wins.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A40", 150e12),
    ("A30", 165e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("V100", 125e12),
    ("T4", 65e12),
)
_FP8_FACTOR = 2
"""Matrix products in 8 bits run twice as fast on the GPUs that have them."""


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of one device, such as "NVIDIA A100-SXM4-80GB", at its best in BF16, FP16 or FP8; None where unknown."""
    if precision == "FP32":
        return None
    peak = next((peak for name, peak in _PEAKS if name in device), None)
    return peak * _FP8_FACTOR if peak and precision == "FP8" else peak


@dataclass(frozen=True)
class ModelShape:
    """What a token costs.

    Attributes:
        weights: Weights of matrix products: all but the embedding table of the input, unless it is the output's too.
        trained: Those of them that are trained, adapters included.
        layers: Transformer layers.
        width: Heads times their size.
    """

    weights: int
    trained: int
    layers: int
    width: int

    def flops_per_token(self, context: float) -> float:
        """FLOPs of the forward and backward pass for one token of a record of `context` tokens."""
        return 4 * self.weights + 2 * self.trained + 12 * self.layers * self.width * context


@dataclass(frozen=True)
class Utilisation:
    """MFU of a run.

    Attributes:
        shape: The model.
        peak: FLOP/s of all devices together; None where unknown.
    """

    shape: ModelShape
    peak: float | None

    def of(self, record: StepRecord) -> float | None:
        """Share of the peak, 0 to 1, from the recent speed; None where the peak is unknown."""
        if not self.peak or not record.samples:
            return None
        context = record.tokens / record.samples
        return record.tokens_per_second * self.shape.flops_per_token(context) / self.peak
