"""The training itself: `recipe = Recipe(…); recipe.setup(); recipe.train(); recipe.cleanup()` on every rank."""

import math
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tunewright_api.names import ExitCode
from tunewright_api.results import Progress, TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import checkpoint, log
from tunewright_trainer.batches import collate, labels
from tunewright_trainer.data import store
from tunewright_trainer.data.split import DataOrder
from tunewright_trainer.deepspeed_config import deepspeed_config
from tunewright_trainer.errors import PreemptedError, StageError
from tunewright_trainer.layout import Layout
from tunewright_trainer.plan import RunPlan, plan_run
from tunewright_trainer.progress import Pace
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.telemetry import Telemetry
from tunewright_trainer.training_arguments import backend, lora_arguments, training_arguments, weights_dtype
from tunewright_trainer.weights import save_trained

COLLECTIVE_TIMEOUT_ENV = "TUNEWRIGHT_COLLECTIVE_TIMEOUT"
COLLECTIVE_TIMEOUT = 600
"""Seconds after which a collective without an answer counts as a lost peer (a node that vanished without closing
its connections). A process that dies is noticed at once by gloo."""

CHECKPOINT_TIMEOUT_ENV = "TUNEWRIGHT_CHECKPOINT_TIMEOUT"
CHECKPOINT_TIMEOUT = 120
"""Seconds after which a checkpoint that rank 0 sees must be visible on every node (NFS caches a directory for 60)."""


class OrderedRecords:
    """The records in the order of the whole run, repetitions included."""

    def __init__(self, records: Sequence[store.PreparedRecord], order: DataOrder, positions: int) -> None:
        self.records = records
        self.order = order
        self.positions = positions

    def __len__(self) -> int:
        return self.positions

    def __getitem__(self, position: int) -> dict[str, list[int]]:
        record = self.records[self.order[position]]
        return {"input_ids": record.ids, "labels": labels(record)}

    def tokens(self, first: int, last: int) -> int:
        """Tokens of the positions [first, last)."""
        return sum(len(self.records[self.order[position]].ids) for position in range(first, last))


class Recipe:
    """One training run on one rank."""

    def __init__(self, config: TrainerConfig, run_directory: RunDirectory, telemetry: Telemetry | None) -> None:
        self.config = config
        self.layout = Layout(config)
        self.run_directory = run_directory
        self.telemetry = telemetry
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.trainer: CheckpointingTrainer

    def setup(self) -> None:
        """Join the process group, load records and model, build the Trainer."""
        config = self.config
        records = store.read(self.layout.train_records)
        self.plan = plan_run(config.hyperparameters, len(records), self.world_size)
        timeout = int(os.environ.get(COLLECTIVE_TIMEOUT_ENV, COLLECTIVE_TIMEOUT))
        if config.distributed is not None:
            _join(self.device, timeout)
        transformers.set_seed(config.hyperparameters.seed)
        # Arguments come before the model: with ZeRO-3 they make from_pretrained shard the weights while loading.
        arguments = TrainingArguments(
            **training_arguments(config, self.plan, self.device, str(self.layout.checkpoints), timeout),
            deepspeed=deepspeed_config(config, self.device),
        )
        self.dataset = OrderedRecords(
            records, DataOrder(len(records), config.hyperparameters.seed), self.plan.positions
        )
        if self.rank == 0:
            checkpoint.clean(self.layout.checkpoints)
        self.resume_step = self._agree_on_checkpoint(arguments.device)
        self.reporter = Reporter(self)
        self.trainer = CheckpointingTrainer(
            self.layout.checkpoints,
            config.checkpoint.keep_last,
            model=load_model(config, self.layout.base_model),
            args=arguments,
            train_dataset=self.dataset,
            data_collator=collate,
            callbacks=[self.reporter],
        )
        for noisy in (PrinterCallback, ProgressCallback):
            self.trainer.remove_callback(noisy)
        self._announce()

    def train(self) -> TrainResult:
        """Train from the newest checkpoint to the last step and save the weights.

        Raises:
            StageError: PREEMPTED after a stop was asked for, DIVERGED for a loss that is no number.
        """
        started = time.monotonic()
        resume = None if self.resume_step is None else checkpoint.path_of(self.layout.checkpoints, self.resume_step)
        self.trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        if self.reporter.stopped:
            step = self.trainer.state.global_step
            raise PreemptedError(f"stopped after a checkpoint at step {step} of {self.plan.total_steps}")
        result = TrainResult(
            steps=self.trainer.state.global_step,
            loss=self.reporter.loss,
            seconds=round(time.monotonic() - started, 1),
            checkpoint_step=self.reporter.checkpoint_step,
        )
        save_trained(self.trainer, self.config, self.layout, result)
        return result

    def _agree_on_checkpoint(self, device: torch.device) -> int | None:
        """The step that rank 0 resumes from, seen by all ranks.

        Raises:
            StageError: INPUT_NOT_READABLE when this rank does not see it in time, PEER_LOST when another one does not.
        """
        root = self.layout.checkpoints
        step = checkpoint.newest(root) if self.rank == 0 else None
        if not dist.is_initialized():
            return step
        chosen = torch.tensor([-1 if step is None else step], device=device)
        dist.broadcast(chosen, src=0)
        step = int(chosen.item())
        if step < 0:
            return None
        unseen: StageError | None = None
        try:
            checkpoint.wait_for(root, step, float(os.environ.get(CHECKPOINT_TIMEOUT_ENV, CHECKPOINT_TIMEOUT)))
        except StageError as error:
            unseen = error
        votes = torch.tensor([int(unseen is not None)], device=device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        if unseen:
            raise unseen
        if votes.item():
            raise StageError(
                ExitCode.PEER_LOST,
                f"another process of this run does not see {checkpoint.path_of(root, step)}: look at the pod that "
                f"ended with {ExitCode.INPUT_NOT_READABLE.reason}",
            )
        return step

    def cleanup(self) -> None:
        """Wait for each other, so that rank 0's store outlives the last collective."""
        if dist.is_initialized():
            dist.barrier()

    def _announce(self) -> None:
        if self.rank:
            return
        h = self.config.hyperparameters
        model = self.trainer.model
        log.info(
            "training",
            records=self.plan.records,
            globalBatch=self.plan.global_batch,
            totalSteps=self.plan.total_steps,
            sequenceLength=h.sequence_length,
            processes=self.world_size,
            device=self.device,
            precision=h.precision.value,
            trainableParameters=sum(_size(p) for p in model.parameters() if p.requires_grad),
            parameters=sum(_size(p) for p in model.parameters()),
            resumeFrom=self.resume_step,
        )
        if self.device == "cpu" and h.precision.value == "BF16":
            log.info("BF16 is slower than FP32 on CPUs without matrix instructions (AMX): consider precision: FP32")


class CheckpointingTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer whose checkpoints appear by a rename, on all ranks together."""

    def __init__(self, root: Path, keep_last: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.root = root
        self.keep_last = keep_last

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights of a checkpoint: DeepSpeed's own state has them, sharded, so nothing is gathered."""
        if self.is_deepspeed_enabled:
            if output_dir:
                Path(output_dir).mkdir(parents=True, exist_ok=True)
            return
        super().save_model(output_dir, _internal_call=_internal_call)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.root / checkpoint.PARTIAL)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        _barrier()
        step = self.state.global_step
        if self.args.process_index == 0:
            written = self.root / checkpoint.PARTIAL / f"checkpoint-{step}"
            checkpoint.commit(self.root, written, step, self.keep_last)
            log.info("checkpoint saved", step=step)
        _barrier()


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Between the steps: agree on stopping, ask for checkpoints, watch the loss, publish progress."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.plan: RunPlan = recipe.plan
        self.pace = Pace(recipe.plan.total_steps)
        self.stopped = False
        self.loss: float | None = None
        self.checkpoint_step: int | None = recipe.resume_step
        self._since = 0.0
        self._publish(
            Progress(
                step=self.checkpoint_step or 0,
                total_steps=self.plan.total_steps,
                epoch=self.plan.epoch(self.checkpoint_step or 0),
                checkpoint_step=self.checkpoint_step,
            )
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The loop is reached: from now on a stop saves first."""
        self.recipe.run_directory.mark_started(self.recipe.rank)
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop and save on all ranks or on none."""
        last = state.global_step >= self.plan.total_steps
        if not last and self._anyone_stops(args.device):
            self.stopped = True
            control.should_training_stop = True
        due = state.global_step % self.recipe.config.checkpoint.every_steps == 0
        control.should_save = not last and (due or self.stopped)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Publish a finished step; the loss is the mean over the assistant tokens of the global batch.

        Raises:
            StageError: DIVERGED, on every rank, because all of them see the same mean.
        """
        if "loss" not in logs:
            return
        now, step = time.monotonic(), state.global_step
        seconds, self._since = now - self._since, now
        self.loss = logs["loss"]
        if not math.isfinite(self.loss):
            raise StageError(
                ExitCode.DIVERGED,
                f"the loss became {self.loss} at step {step}: lower hyperparameters.learningRate or raise warmupRatio",
            )
        if self.recipe.rank:
            return
        tokens = self.recipe.dataset.tokens((step - 1) * self.plan.global_batch, step * self.plan.global_batch)
        self.pace.add(seconds, tokens)
        grad_norm = logs.get("grad_norm")
        progress = Progress(
            step=step,
            total_steps=self.plan.total_steps,
            epoch=round(self.plan.epoch(step), 4),
            eta_seconds=self.pace.eta_seconds(step),
            tokens_per_second=self.pace.tokens_per_second,
            loss=self.loss,
            learning_rate=logs["learning_rate"],
            checkpoint_step=self.checkpoint_step,
        )
        self._publish(progress)
        if self.recipe.telemetry:
            self.recipe.telemetry.observe_step(seconds, tokens, grad_norm)
        log.info(f"step {step}/{self.plan.total_steps}", **progress.to_dict(), gradNorm=grad_norm, seconds=seconds)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint is complete."""
        self.checkpoint_step = state.global_step
        if self.recipe.telemetry:
            self._publish(self.recipe.telemetry.progress.model_copy(update={"checkpoint_step": self.checkpoint_step}))

    def _publish(self, progress: Progress) -> None:
        if self.recipe.telemetry:
            self.recipe.telemetry.publish(progress)

    def _anyone_stops(self, device: torch.device) -> bool:
        flag = self.recipe.run_directory.stop_requested()
        if not dist.is_initialized():
            return flag
        votes = torch.tensor([int(flag)], device=device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())


def load_model(config: TrainerConfig, path: Path) -> torch.nn.Module:
    """The base model in its training dtype, with adapters for LoRA."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, weights_dtype(config)), use_safetensors=True, local_files_only=True
    )
    model.config.use_cache = False
    if config.method.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    try:
        return get_peft_model(model, LoraConfig(**lora_arguments(config.method.lora)))
    except ValueError as error:
        if "target" not in str(error).lower():
            raise
        raise StageError(ExitCode.INVALID_CONFIG, f"method.lora.targetModules: {str(error).splitlines()[0]}") from error


def _join(device: str, timeout: int) -> None:
    """Join the process group through DeepSpeed: gloo on CPUs, NCCL on GPUs."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if device == "cpu":
        # Shared-memory all-reduce for inference within a node: compiling it costs a C++ toolchain in the image and a
        # minute per start, and training does not need it. Declared incompatible, DeepSpeed goes on without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "0"),
    ):
        os.environ.setdefault(name, value)
    deepspeed.init_distributed(
        dist_backend=backend(device),
        auto_mpi_discovery=False,
        timeout=timedelta(seconds=timeout),
        verbose=False,
    )


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _size(parameter: torch.nn.Parameter) -> int:
    """Elements of a parameter; ZeRO-3 keeps the count of the whole one in ds_numel."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
