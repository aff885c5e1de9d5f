"""Model FLOPs utilisation: what a run computes, by the model's formula, over what its devices could. Pure.

Per trained token a forward pass costs 2 FLOPs for each weight of a matrix product (a multiplication and an addition),
the gradient with respect to the activations as many, and that of the weights as many again for those that are
trained (Kaplan et al. 2020, arXiv:2001.08361, section 2.1: 6N where all are). Attention adds 12 L H Q T for L layers,
H heads of size Q and T tokens of context (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B; the causal half
that is skipped is counted, recomputation by gradient checkpointing is not).
"""

import re
from dataclasses import dataclass

from tunewright_trainer.steps import StepRecord

# Dense tensor-core TFLOP/s (BF16, or FP16 for those without; FP8) by the words that the device's name contains; the
# first row that fits wins. The sources are the data sheets of these products by NVIDIA. Where one has figures with 2:4
# sparsity only, they are halved.
_PEAKS: tuple[tuple[str, float, float | None], ...] = (
    ("GB200", 2500, 5000),  # GB200 NVL72 data sheet, one GPU: 5,000 and 10,000 with sparsity
    ("B200", 2250, 4500),  # DGX B200 data sheet, a GPU of eight: FP8 72 PFLOP/s with sparsity
    ("GH200", 989, 1979),  # GH200 Grace Hopper data sheet: 1,979 and 3,958 with sparsity
    ("H200 NVL", 835, 1671),  # H200 data sheet: 1,671 and 3,341 with sparsity
    ("H200", 989, 1979),  # H200 data sheet, SXM: 1,979 and 3,958 with sparsity
    ("H100 NVL", 835, 1671),  # H100 data sheet: 1,671 and 3,341 with sparsity
    ("H100 PCIe", 756, 1513),  # H100 PCIe product brief: 1,513 and 3,026 with sparsity
    ("H800 PCIe", 756, 1513),  # as H100 PCIe; its links and FP64 are reduced
    ("H100", 989, 1979),  # H100 data sheet, SXM: 1,979 and 3,958 with sparsity
    ("H800", 989, 1979),  # as H100 SXM; its links and FP64 are reduced
    ("A100", 312, None),  # A100 data sheet, PCIe and SXM, 40 and 80 GB: 312
    ("A800", 312, None),  # A800 data sheet: 312
    ("L40S", 362, 733),  # L40S data sheet: 362.05 and 733
    ("L40", 181, 362),  # L40 data sheet: 181.05 and 362
    ("L4", 121, 242),  # L4 data sheet: 242 and 485 with sparsity
    ("A40", 150, None),  # A40 data sheet: 149.7
    ("A30", 165, None),  # A30 data sheet: 165
    ("A10G", 70, None),  # A10G data sheet (AWS): 70
    ("A10", 125, None),  # A10 data sheet: 125
    ("V100S", 130, None),  # V100 data sheet, V100S PCIe: 130
    ("V100-PCIE", 112, None),  # V100 data sheet, PCIe: 112
    ("V100", 125, None),  # V100 data sheet, SXM2: 125
    ("T4", 65, None),  # T4 data sheet: 65
)


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of one device, such as "NVIDIA A100-SXM4-80GB", at its best in BF16, FP16 or FP8; None where unknown.

    Unknown, too, are a slice of a GPU (MIG), whose name is the whole one's, and FP8 on what does not have it.
    """
    if precision == "FP32" or re.search(r"\bMIG\b", device):
        return None
    for name, half, fp8 in _PEAKS:
        if re.search(rf"\b{name}\b", device):
            peak = fp8 if precision == "FP8" else half
            return peak * 1e12 if peak else None
    return None


@dataclass(frozen=True)
class ModelShape:
    """What a token costs.

    Attributes:
        weights: Weights of matrix products: all but the embedding table of the input, unless it is the output's too;
            of the experts of a mixture as many as a token meets.
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
        shape: The model; None where unknown.
        peak: FLOP/s of all devices together; None where unknown.
        rows_per_record: Of a preference pair both answers are read, each after its prompt.
    """

    shape: ModelShape | None
    peak: float | None
    rows_per_record: int = 1

    def of(self, record: StepRecord) -> float | None:
        """Share of the peak, 0 to 1, from the recent speed; None where that or the model's shape is unknown."""
        if not self.shape or not self.peak or not record.samples:
            return None
        context = record.tokens / (record.samples * self.rows_per_record)
        return record.tokens_per_second * self.shape.flops_per_token(context) / self.peak
