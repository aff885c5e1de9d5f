"""One rank of a few optimizer steps under a strategy: JSON in (first argument), JSON out (last line).

torchrun --nproc-per-node 2 tests/trainer/strategy_run.py '{"model": "DIR", "distributed": {"fsdp": {}}}'
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_api.method import Method
from tunewright_trainer.objectives.objective import IGNORED, Batch
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.optim.optimizer import build_optimizer
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.processes import Processes, join

GLOBAL_ROWS = 8
"""Records of each optimizer step, whoever reads them."""

STEPS, SAVED = 5, 3
MAX_NORM = 0.5


def load_model(settings: dict[str, Any]) -> torch.nn.Module:
    """The model of a directory, with what the method adds."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        settings["model"], dtype=torch.float16 if settings.get("fp16") else torch.float32
    )
    if settings.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.get("method"):
        from tunewright_trainer.methods.build import add_adapter

        model = add_adapter(model, Method.model_validate(settings["method"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


def build(settings: dict[str, Any], processes: Processes) -> Strategy:
    """The strategy by the keys of spec.distributed."""
    distributed = settings.get("distributed") or {}
    cast = casting(processes.device, torch.bfloat16 if settings.get("bf16") else None)
    if "pipeline" in distributed:
        from tunewright_trainer.parallel.pipeline import PipelineParallel

        return PipelineParallel(processes, distributed["pipeline"]["stages"], cast)
    if "fsdp" in distributed:
        from tunewright_api.distributed import Fsdp
        from tunewright_trainer.parallel.fsdp import FullySharded

        fsdp = Fsdp.model_validate(distributed["fsdp"])
        return FullySharded(processes, fsdp, torch.bfloat16 if settings.get("bf16") else None)
    if "ddp" in distributed:
        from tunewright_trainer.parallel.ddp import DataParallel

        return DataParallel(processes, cast, scales_loss=False)
    if "deepspeed" in distributed:
        from tunewright_trainer.parallel.zero import Zero

        rows = settings.get("rows", 2)
        # No tensor is small enough to stay whole: what this model has is divided as the weights of a large one are.
        zero = {"stage": distributed["deepspeed"]["zeroStage"], "stage3_param_persistence_threshold": 0}
        return Zero(
            processes,
            {
                "train_micro_batch_size_per_gpu": rows,
                "gradient_accumulation_steps": GLOBAL_ROWS // rows // processes.world_size,
                "gradient_clipping": MAX_NORM,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": zero,
                # A scale that nothing of this model overflows with: no step is skipped.
                "fp16": {"enabled": bool(settings.get("fp16")), "initial_scale_power": 8},
            },
        )
    from tunewright_trainer.parallel.single import Single

    return Single(processes.device, cast, scales_loss=False)


def micro_batches(step: int, rank: int, size: int, rows: int, vocabulary: int) -> list[Batch]:
    """The share of one of `size` processes in a step; rows of different lengths, some of whose tokens count."""
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(6, 24, (GLOBAL_ROWS,), generator=generator).tolist()
    texts = [torch.randint(0, vocabulary, (length,), generator=generator) for length in lengths]
    own = range(rank * rows, GLOBAL_ROWS, size * rows)
    return [_batch(texts[start : start + rows]) for start in own]


def _batch(texts: list[torch.Tensor]) -> Batch:
    longest = max(len(text) for text in texts)

    def pad(values: torch.Tensor, filler: int) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, longest - len(values)), value=filler)

    labels = torch.stack([pad(text, IGNORED) for text in texts])
    labels[:, :3] = IGNORED
    return Batch(
        inputs={
            "input_ids": torch.stack([pad(text, 0) for text in texts]),
            "attention_mask": torch.stack([pad(torch.ones_like(text), 0) for text in texts]),
        },
        labels=labels,
        units=int((labels[:, 1:] != IGNORED).sum()),
        tokens=sum(len(text) for text in texts),
        samples=len(texts),
    )


class Run:
    """Some optimizer steps of a model of its own, from the beginning or from a saved state."""

    def __init__(self, settings: dict[str, Any], processes: Processes) -> None:
        self.rows = settings.get("rows", 2)
        self.strategy = build(settings, processes)
        self.model: Any = load_model(settings)
        hyperparameters = Hyperparameters.model_validate(
            {"maxSteps": 5, "optimizer": settings.get("optimizer", "AdamW")}
        )
        self.strategy.wrap(self.model, lambda named: build_optimizer(named, hyperparameters, processes.device.type))
        self.vocabulary = json.loads((Path(settings["model"]) / "config.json").read_text())["vocab_size"]
        self.losses: list[float] = []
        self.norms: list[float] = []

    def train(self, steps: range) -> None:
        """Take these steps."""
        for step in steps:
            batches = micro_batches(step, self.strategy.data_rank, self.strategy.data_size, self.rows, self.vocabulary)
            units = sum(batch.units for batch in micro_batches(step, 0, 1, self.rows, self.vocabulary))
            result = self.strategy.step(batches, Supervised(), units=units, learning_rate=3e-3, max_grad_norm=MAX_NORM)
            self.losses.append(result.loss)
            self.norms.append(result.grad_norm)

    def evaluate(self) -> float:
        """The loss of records that no step reads."""
        rank, size = self.strategy.data_rank, self.strategy.data_size
        return self.strategy.evaluate(micro_batches(99, rank, size, GLOBAL_ROWS // size, self.vocabulary), Supervised())


def main() -> None:
    """Train, train again from the state after step SAVED, and say what happened."""
    settings = json.loads(sys.argv[1])
    out = Path(settings["out"])
    torch.set_num_threads(1)
    processes = join(distributed=bool(settings.get("distributed")))
    whole = Run(settings, processes)
    whole.train(range(SAVED))
    torch.save(whole.strategy.state(), out / f"state-{processes.rank}.pt")
    whole.train(range(SAVED, STEPS))
    evaluated = whole.evaluate()
    state = whole.strategy.gather(keep=processes.rank == 0, dtype=None, whole=not settings.get("method"))

    processes.meet()
    resumed = Run(settings, processes)
    resumed.strategy.restore(torch.load(out / f"state-{resumed.strategy.state_rank}.pt", weights_only=True))
    resumed.train(range(SAVED, STEPS))

    if processes.rank == 0:
        torch.save(state, out / "gathered.pt")
        found = {"losses": whole.losses, "norms": whole.norms, "evaluated": evaluated, "resumed": resumed.losses}
        (out / "result.json").write_text(json.dumps(found))
    processes.meet()


if __name__ == "__main__":
    main()
