"""The training itself: `recipe = Recipe(…); recipe.setup(); recipe.train(); recipe.cleanup()` on every rank."""

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import transformers
from torch import nn

from tunewright_api.distributed import Offload
from tunewright_api.results import TrainResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.checkpoint import directory, resume
from tunewright_trainer.checkpoint.checkpointer import Checkpointer
from tunewright_trainer.checkpoint.describe import describe
from tunewright_trainer.checkpoint.staging import Staging
from tunewright_trainer.data import store
from tunewright_trainer.data.order import Order, build_order
from tunewright_trainer.data.ordered import OrderedRecords, packing_of
from tunewright_trainer.data.split import sample
from tunewright_trainer.errors import PreemptedError
from tunewright_trainer.guards.smoke import check_collectives
from tunewright_trainer.guards.watchdog import start_watchdog
from tunewright_trainer.hardware import measure_hardware
from tunewright_trainer.hooks import build_hooks
from tunewright_trainer.layout import Layout
from tunewright_trainer.loader import BatchSource, Loader, Share
from tunewright_trainer.memory import held_bytes
from tunewright_trainer.methods.build import build_model, choose_kernels
from tunewright_trainer.objectives.build import build_objective
from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.objectives.reference import ReferencedPairs, measure_reference
from tunewright_trainer.optim.optimizer import build_optimizer
from tunewright_trainer.optim.schedule import learning_rate
from tunewright_trainer.parallel.build import build_strategy
from tunewright_trainer.parallel.strategy import StepResult
from tunewright_trainer.plan import plan_run
from tunewright_trainer.processes import join
from tunewright_trainer.progress import Pace
from tunewright_trainer.report.steplog import read_evaluations, read_steps
from tunewright_trainer.reporter import begin
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.startup import Startup, clock
from tunewright_trainer.steps import EVAL_LOSS, StepRecord, StopTraining
from tunewright_trainer.telemetry import Telemetry
from tunewright_trainer.validation import Validation
from tunewright_trainer.weights import save_trained


@dataclass(frozen=True)
class Totals:
    """What one step reads over all processes: units of the objective, tokens, records."""

    units: int
    tokens: int
    samples: int


class StepClock:
    """Where the time of a step goes, in seconds."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self.waited = self.stalled = 0.0

    def lap(self) -> tuple[float, float, float]:
        """(since the lap before, of it waiting for data, of it waiting for a checkpoint); counts from anew."""
        now = time.perf_counter()
        result = (now - self._since, self.waited, self.stalled)
        self._since, self.waited, self.stalled = now, 0.0, 0.0
        return result


class Recipe:
    """One training run on one rank."""

    def __init__(
        self,
        config: TrainerConfig,
        run_directory: RunDirectory,
        telemetry: Telemetry | None,
        startup: Startup | None = None,
    ) -> None:
        self.config = config
        self.layout = Layout(config)
        self.run_directory = run_directory
        self.telemetry = telemetry
        self.startup = startup or Startup(clock())

    def setup(self) -> None:
        """Join the process group, load records and model, take up the newest checkpoint.

        Raises:
            StageError: INVALID_CONFIG, INPUT_NOT_READABLE or PEER_LOST.
        """
        config, h = self.config, self.config.hyperparameters
        self.processes = join(distributed=config.distributed is not None)
        self.watchdog = start_watchdog(self.processes, self.run_directory)
        self.watchdog.enter("smoke", 0)
        check_collectives(self.processes)
        self.startup.end("processes")
        self.watchdog.enter("setup", 0)
        self.strategy = build_strategy(config, self.processes)
        records = store.read(self.layout.train_records)
        self.plan = plan_run(h, len(records), self.strategy.data_size)
        self.share = Share(
            self.strategy.data_rank, self.strategy.data_size, h.micro_batch_size, h.gradient_accumulation_steps
        )
        if self.telemetry:
            # While the model is loaded a resumed run already tells where it stands.
            saved = directory.newest(self.layout.checkpoints)
            self.telemetry.publish(begin(self.plan, saved, read_evaluations(self.layout.steps, saved or 0)))
        transformers.set_seed(h.seed)
        self.model = build_model(config, self.layout.base_model, self.processes.device.type)
        self.startup.end("model")
        ordered = OrderedRecords(records, self._order(records), packing_of(h, self.model))
        self.source: BatchSource = ordered
        hardware = measure_hardware(
            self.model, self.processes, h.precision.value, rows_per_record=2 if config.objective.dpo else 1
        )
        self.objective = build_objective(config, self.layout, self.model, self.processes.device)
        # The same initial weights everywhere, but dropout of its own for each copy of the model.
        transformers.set_seed(h.seed + self.strategy.data_rank)
        device = self.processes.device
        self.strategy.wrap(self.model, lambda named: build_optimizer(named, h, device.type))
        self.startup.end("optimizer")
        if config.objective.dpo:
            self.source = self._with_reference(ordered, "train")
        self.validation = self._build_validation()
        self._take_up()
        self.pace = Pace(self.plan.total_steps)
        self.hooks = build_hooks(
            config,
            self.plan,
            self.pace,
            self.telemetry,
            self.checkpoints,
            hardware=hardware,
            kernels=choose_kernels(config, self.layout.base_model, self.processes.device.type),
            from_first=self.processes.from_first,
            startup=self.startup,
        )
        self.hooks.phase.append(self.watchdog.enter)
        self.hooks.end.append(self.watchdog.stop)
        self._announce(len(records))
        self.startup.end("resume")

    def train(self) -> TrainResult:
        """Train from the newest checkpoint to the last step and save the weights.

        Raises:
            StageError: PREEMPTED after a stop was asked for, DIVERGED for a loss that is no number.
        """
        self.loss: float | None = None
        self.loader = Loader(self.source, self.share, self.processes.device, self.step, self.plan.total_steps)
        self.run_directory.mark_started(self.processes.rank)
        try:
            self._run()
        except StopTraining as stop:
            log.info("stopped early", step=self.step, reason=stop.reason)
        finally:
            self.loader.close()
            self.hooks.close()
        self.checkpoints.wait()
        result = TrainResult(
            steps=self.step,
            loss=self.loss,
            seconds=round(self.seconds, 1),
            checkpoint_step=self.checkpoints.completed,
        )
        self.hooks.enter("save", self.step)
        save_trained(self.model, self.strategy, self.config, self.layout, result, keep=self.processes.rank == 0)
        return result

    def cleanup(self) -> None:
        """Wait for each other, so that rank 0's store outlives the last collective.

        Rank 0 writes the weights meanwhile, to a disk that may be slow: the others are as patient as with a checkpoint.
        """
        self.processes.meet(self.processes.saving)

    def _run(self) -> None:
        every = self.config.checkpoint.every_steps
        clock = StepClock()
        while self.step < self.plan.total_steps:
            self.hooks.enter("batch", self.step)
            micro_batches, clock.waited = self.loader.take()
            self.hooks.enter("agree", self.step)
            totals, stopping = self._agree(micro_batches)
            if stopping:
                self._preempt()
            self.hooks.enter("step", self.step)
            rate = self._learning_rate()
            result = self.strategy.step(
                self.watchdog.follow(micro_batches),
                self.objective,
                units=totals.units,
                learning_rate=rate,
                max_grad_norm=self.config.hyperparameters.max_grad_norm,
            )
            self.step += 1
            self.loss = result.loss
            record = self._record(result, rate, totals, clock)
            if self._evaluates():
                self.hooks.enter("evaluate", self.step)
                evaluated = self.validation.loss(self.watchdog.follow)
                record = replace(record, figures={**record.figures, EVAL_LOSS: evaluated})
                # Its time is not the next step's.
                clock.lap()
            self.hooks.finish(record)
            self.checkpoints.poll()
            if self.step % every == 0 and self.step < self.plan.total_steps:
                self.hooks.enter("checkpoint", self.step)
                clock.stalled = self.checkpoints.save(self.step, self.strategy.state())

    def _evaluates(self) -> bool:
        every = self.config.evaluation.every_steps
        return every is not None and (self.step % every == 0 or self.step == self.plan.total_steps)

    def _build_validation(self) -> Validation:
        """The held-out records that the evaluate stage will use too."""
        evaluation, h = self.config.evaluation, self.config.hyperparameters
        held_out = sample(store.read(self.layout.validation_records), evaluation.max_records, h.seed)
        ordered = OrderedRecords(held_out, range(len(held_out)))
        measures = self.config.objective.dpo and evaluation.every_steps
        source: BatchSource = self._with_reference(ordered, "validation") if measures else ordered
        return Validation(
            source,
            len(held_out),
            h.micro_batch_size,
            strategy=self.strategy,
            objective=self.objective,
            processes=self.processes,
        )

    def _order(self, records: store.Records) -> Order:
        """Which record is trained at each position."""
        h = self.config.hyperparameters
        return build_order(
            records.sources,
            [part.weight for part in self.config.dataset.sources],
            h.seed,
            lengths=records.lengths if h.group_by_length else None,
            global_batch=self.plan.global_batch,
            positions=self.plan.positions,
        )

    def _with_reference(self, pairs: OrderedRecords, name: str) -> ReferencedPairs:
        """DPO's pairs, with what the model says about them before it is trained."""
        reference = measure_reference(
            OrderedRecords(pairs.records, range(len(pairs.records))),
            len(pairs.records),
            self.layout.work / f"reference-{name}.npy",
            model=self.model,
            micro_batch=self.config.hyperparameters.micro_batch_size,
            strategy=self.strategy,
            processes=self.processes,
        )
        return ReferencedPairs(pairs, reference)

    def _agree(self, micro_batches: Sequence[Batch]) -> tuple[Totals, bool]:
        """What all processes read in this step, and whether any of them was asked to stop."""
        own = Totals(
            units=sum(batch.units for batch in micro_batches),
            tokens=sum(batch.tokens for batch in micro_batches),
            samples=sum(batch.samples for batch in micro_batches),
        )
        *sums, stopping = self.processes.total([*astuple(own), int(self.run_directory.stop_requested())])
        # Processes that share one copy of the model read the same records.
        copies = self.processes.world_size // self.strategy.data_size
        return Totals(*(number // copies for number in sums)), bool(stopping)

    def _record(self, result: StepResult, rate: float, totals: Totals, clock: StepClock) -> StepRecord:
        seconds, waited, stalled = clock.lap()
        self.seconds += seconds
        self.pace.add(seconds, totals.tokens)
        held, peak = held_bytes(self.processes.device)
        return StepRecord(
            step=self.step,
            total_steps=self.plan.total_steps,
            epoch=self.plan.epoch(self.step),
            loss=result.loss,
            learning_rate=rate,
            grad_norm=result.grad_norm,
            seconds=seconds,
            data_wait_seconds=waited,
            checkpoint_stall_seconds=stalled,
            tokens=totals.tokens,
            tokens_per_second=self.pace.tokens_per_second or 0.0,
            samples=totals.samples,
            memory_bytes=held,
            peak_memory_bytes=peak,
            figures=self.objective.figures(),
        )

    def _learning_rate(self) -> float:
        h = self.config.hyperparameters
        return learning_rate(
            self.step,
            peak=h.learning_rate,
            scheduler=h.scheduler,
            warmup_steps=self.plan.warmup_steps,
            total_steps=self.plan.total_steps,
        )

    def _preempt(self) -> None:
        """Save, unless that step is saved already, and end.

        Raises:
            StageError: PREEMPTED.
        """
        self.hooks.enter("checkpoint", self.step)
        self.checkpoints.wait()
        if self.checkpoints.completed != self.step:
            self.checkpoints.save(self.step, self.strategy.state())
            self.checkpoints.wait()
        raise PreemptedError(f"stopped after a checkpoint at step {self.step} of {self.plan.total_steps}")

    def _take_up(self) -> None:
        """Go on from the newest checkpoint, the same one on all ranks, or begin."""
        root = self.layout.checkpoints
        if self.processes.rank == 0:
            directory.clean(root)
        found = resume.agree(root, self.processes)
        self.step = found or 0
        self.checkpoints = Checkpointer(
            root,
            self.config.checkpoint.keep_last,
            self.processes,
            state_rank=self.strategy.state_rank,
            description=describe(self.config, self.plan, self.strategy, self.processes),
            completed=found,
            staging=self._staging(),
        )
        if found is not None:
            self.strategy.restore(self.checkpoints.load(found))
        self.seconds = self._past_seconds()

    def _past_seconds(self) -> float:
        """What the steps before a resume took, by the log of rank 0."""
        past = read_steps(self.layout.steps, until=self.step) if self.processes.rank == 0 else []
        return self.processes.from_first(round(1000 * sum(step.record.seconds for step in past))) / 1000

    def _staging(self) -> Staging:
        """Copies of a state that waits on a disk wait there, too: it need not fit into memory."""
        deepspeed = self.config.distributed.deepspeed if self.config.distributed else None
        if deepspeed and deepspeed.offload_optimizer is Offload.NVME:
            return Staging(Path(self.config.directories.nvme, "checkpoint"))
        return Staging()

    def _announce(self, records: int) -> None:
        if self.processes.rank:
            return
        h = self.config.hyperparameters
        log.info(
            "training",
            records=records,
            globalBatch=self.plan.global_batch,
            totalSteps=self.plan.total_steps,
            sequenceLength=h.sequence_length,
            processes=self.processes.world_size,
            device=self.processes.device.type,
            precision=h.precision.value,
            trainableParameters=sum(_size(p) for p in self.model.parameters() if p.requires_grad),
            parameters=sum(_size(p) for p in self.model.parameters()),
            resumeFrom=self.step or None,
        )
        if self.processes.device.type == "cpu" and h.precision.value == "BF16":
            log.info("BF16 is slower than FP32 on CPUs without matrix instructions (AMX): consider precision: FP32")


def _size(parameter: nn.Parameter) -> int:
    """Elements of a parameter; ZeRO-3 keeps the count of the whole one in ds_numel."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
