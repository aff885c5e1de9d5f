"""A run -> the configuration file of `accelerate launch`. Pure.

The trainer itself does not read it: its loop starts under torchrun and shares the work by `parallel/`. The file is for
people who want to run another program, or compare one, on the same processes with the same sharding. Its fields are
those of accelerate's ClusterConfig.
"""

from typing import Any

from tunewright_api.distributed import DeepSpeed, Fsdp, Offload, Sharding
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError

_MIXED_PRECISION = {"BF16": "bf16", "FP16": "fp16", "FP32": "no", "FP8": "fp8"}


def accelerate_config(config: TrainerConfig, device: str, machine_rank: int = 0) -> dict[str, Any]:
    """What `accelerate launch --config_file` reads on one pod, as YAML or JSON.

    Args:
        config: The run.
        device: cpu or cuda.
        machine_rank: Rank of the pod.

    Raises:
        StageError: INVALID_CONFIG for pipeline parallelism, which accelerate does not start.
    """
    distributed, rendezvous = config.distributed, config.rendezvous
    common: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": _MIXED_PRECISION[config.hyperparameters.precision.value],
        "use_cpu": device == "cpu",
        "num_machines": rendezvous.nodes,
        "num_processes": rendezvous.nodes * rendezvous.processes_per_node,
        "machine_rank": machine_rank,
        "main_process_ip": rendezvous.address,
        "main_process_port": rendezvous.port,
        "rdzv_backend": "static",
        "same_network": True,
    }
    if distributed is None:
        return common | {"distributed_type": "NO"}
    if distributed.pipeline:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "accelerate does not start a pipeline: run tunewright-trainer train, or use ddp, deepspeed or fsdp",
        )
    if distributed.deepspeed:
        sharing = {"distributed_type": "DEEPSPEED", "deepspeed_config": _deepspeed(config, distributed.deepspeed)}
    elif distributed.fsdp:
        sharing = {"distributed_type": "FSDP", "fsdp_config": _fsdp(config, distributed.fsdp)}
    else:
        sharing = {"distributed_type": "MULTI_CPU" if device == "cpu" else "MULTI_GPU"}
    return common | sharing


def _deepspeed(config: TrainerConfig, deepspeed: DeepSpeed) -> dict[str, Any]:
    result: dict[str, Any] = {
        "zero_stage": deepspeed.zero_stage,
        "gradient_accumulation_steps": config.hyperparameters.gradient_accumulation_steps,
        "gradient_clipping": config.hyperparameters.max_grad_norm,
        "offload_optimizer_device": deepspeed.offload_optimizer.value.lower(),
        "offload_param_device": deepspeed.offload_parameters.value.lower(),
        "zero3_init_flag": deepspeed.zero_stage == 3,
        "zero3_save_16bit_model": False,
        "deepspeed_multinode_launcher": "standard",
    }
    if deepspeed.offload_optimizer is Offload.NVME:
        result["offload_optimizer_nvme_path"] = config.directories.nvme
    if deepspeed.offload_parameters is Offload.NVME:
        result["offload_param_nvme_path"] = config.directories.nvme
    return result


def _fsdp(config: TrainerConfig, fsdp: Fsdp) -> dict[str, Any]:
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": fsdp.sharding is Sharding.FULL,
        "fsdp_offload_params": fsdp.cpu_offload,
        "fsdp_activation_checkpointing": config.hyperparameters.gradient_checkpointing,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False,
    }
