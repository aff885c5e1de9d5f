"""hyperparameters.precision -> the dtypes of weights and computation, as names in torch. Pure.

FP32 is float32 throughout. In half precision (BF16, FP16; FP8 is BF16 but for the products that fp8.py computes)
- DeepSpeed holds half-precision weights and keeps fp32 master copies itself;
- the base of an adapter is frozen, so it needs no master copy: half-precision base under an fp32 adapter, computed by
  autocast;
- full training keeps fp32 weights and casts per operation (Micikevicius et al. 2018, arXiv:1710.03740).
"""

from tunewright_api.trainer_config import TrainerConfig

_HALF = {"BF16": "bfloat16", "FP16": "float16", "FP8": "bfloat16"}


def half(config: TrainerConfig) -> str | None:
    """The half-precision dtype of the run; None for FP32."""
    return _HALF.get(config.hyperparameters.precision.value)


def deepspeed_casts(config: TrainerConfig) -> bool:
    """Whether DeepSpeed holds the weights, and with them the master copies."""
    return config.distributed is not None and config.distributed.deepspeed is not None


def weights_dtype(config: TrainerConfig) -> str:
    """The dtype in which the base model is loaded for training."""
    dtype = half(config)
    return dtype if dtype and (deepspeed_casts(config) or config.method.full is None) else "float32"


def autocast_dtype(config: TrainerConfig) -> str | None:
    """The dtype that autocast computes in; None where weights and computation have the same dtype."""
    return None if deepspeed_casts(config) else half(config)


def scales_loss(config: TrainerConfig) -> bool:
    """Whether small gradients must be kept from vanishing by scaling the loss; DeepSpeed does it itself."""
    return autocast_dtype(config) == "float16"
