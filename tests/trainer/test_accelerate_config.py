"""The file for `accelerate launch`: whole dictionaries, and accelerate reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import Job
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.__main__ import main
from tunewright_trainer.accelerate_config import accelerate_config
from tunewright_trainer.deepspeed_config import deepspeed_config
from tunewright_trainer.errors import StageError

COMMON = {
    "compute_environment": "LOCAL_MACHINE",
    "mixed_precision": "bf16",
    "use_cpu": False,
    "num_machines": 2,
    "num_processes": 16,
    "machine_rank": 1,
    "main_process_ip": "run-0.run",
    "main_process_port": 29500,
    "rdzv_backend": "static",
    "same_network": True,
}
ZERO = {
    "zero_stage": 3,
    "gradient_accumulation_steps": 8,
    "gradient_clipping": 1.0,
    "offload_optimizer_device": "cpu",
    "offload_param_device": "nvme",
    "offload_param_nvme_path": "/mnt/nvme",
    "zero3_init_flag": True,
    "zero3_save_16bit_model": False,
    "deepspeed_multinode_launcher": "standard",
}
FSDP = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": False,
    "fsdp_offload_params": True,
    "fsdp_activation_checkpointing": False,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
}
CASES = [
    pytest.param(None, {"distributed_type": "NO"}, id="one process"),
    pytest.param({"ddp": {}}, {"distributed_type": "MULTI_GPU"}, id="DDP"),
    pytest.param(
        {
            "deepspeed": {
                "zeroStage": 3,
                "offloadOptimizer": "CPU",
                "offloadParameters": "NVMe",
                "nvme": {"size": "1Ti"},
            }
        },
        {"distributed_type": "DEEPSPEED", "deepspeed_config": ZERO},
        id="ZeRO-3 that offloads",
    ),
    pytest.param(
        {"fsdp": {"sharding": "GradientsAndOptimizer", "cpuOffload": True}},
        {"distributed_type": "FSDP", "fsdp_config": FSDP},
        id="FSDP2 that keeps the weights",
    ),
]


def parse(job: Callable[..., Job], distributed: dict[str, Any] | None) -> TrainerConfig:
    return TrainerConfig.model_validate(
        job(
            distributed=distributed,
            directories={"nvme": "/mnt/nvme"},
            hyperparameters={"precision": "BF16", "gradientAccumulationSteps": 8},
            rendezvous={"nodes": 2, "processesPerNode": 8, "address": "run-0.run", "port": 29500},
        ).config
    )


@pytest.mark.parametrize(("distributed", "want"), CASES)
def test_the_file(
    job: Callable[..., Job], tmp_path: Path, distributed: dict[str, Any] | None, want: dict[str, Any]
) -> None:
    made = accelerate_config(parse(job, distributed), "cuda", machine_rank=1)
    assert made == {**COMMON, **want}
    path = tmp_path / "accelerate.json"
    path.write_text(json.dumps(made))
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(path))
    assert read.distributed_type.value == want["distributed_type"]
    assert (read.num_processes, read.machine_rank) == (16, 1)


def test_cpus_are_a_kind_of_their_own(job: Callable[..., Job]) -> None:
    made = accelerate_config(parse(job, {"ddp": {}}), "cpu")
    assert (made["distributed_type"], made["use_cpu"]) == ("MULTI_CPU", True)


def test_a_pipeline_is_refused(job: Callable[..., Job]) -> None:
    with pytest.raises(StageError, match="does not start a pipeline") as caught:
        accelerate_config(parse(job, {"pipeline": {"stages": 2}}), "cuda")
    assert caught.value.code is ExitCode.INVALID_CONFIG


def printed(capsys: pytest.CaptureFixture[str], path: Path, launcher: str) -> tuple[object, str]:
    """Exit code and what `tunewright-trainer config` wrote."""
    with pytest.raises(SystemExit) as caught:
        main(["config", launcher, "--config", str(path)])
    written = capsys.readouterr()
    return caught.value.code, written.out or written.err


def test_the_command_prints_the_file_of_either_launcher(
    job: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    config = parse(job, {"deepspeed": {"zeroStage": 2}})
    path.write_text(json.dumps(config.to_dict()))
    code, text = printed(capsys, path, "accelerate")
    assert (code, json.loads(text)) == (0, accelerate_config(config, "cuda"))
    code, text = printed(capsys, path, "deepspeed")
    assert (code, json.loads(text)) == (0, deepspeed_config(config, "cuda"))


def test_the_command_says_why_there_is_no_file(
    job: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(parse(job, {"fsdp": {}}).to_dict()))
    code, text = printed(capsys, path, "deepspeed")
    assert code == ExitCode.INVALID_CONFIG
    assert text == (
        "the run does not use DeepSpeed: there is a file for accelerate only, or set distributed.deepspeed\n"
    )
