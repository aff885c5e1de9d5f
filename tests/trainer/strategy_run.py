"""One rank of a few optimizer steps under a strategy: JSON in (first argument), JSON out (last line).

torchrun --nproc-per-node 2 tests/trainer/strategy_run.py '{"model": "DIR", "distributed": {"fsdp": {}}}'
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tunewright_trainer.objectives.objective import IGNORED, Batch
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.processes import Processes, join

GLOBAL_ROWS = 8
"""Records of each optimizer step, whoever reads them."""


def load_model(settings: dict[str, Any]) -> torch.nn.Module:
    """The model of a directory, with adapters if asked for."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    if settings.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.get("lora"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
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


def main() -> None:
    """Train, optionally through a saved state, and say what happened."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    processes = join(distributed=bool(settings.get("distributed")))
    strategy = build(settings, processes)
    model = load_model(settings)
    vocabulary = model.config.vocab_size
    strategy.wrap(model, lambda named: torch.optim.AdamW([p for _, p in named if p.requires_grad]))
    objective = Supervised()
    rows = settings.get("rows", 2)
    out = Path(settings["out"])
    first = settings.get("resume") or 0
    if first:
        strategy.restore(torch.load(out / f"state-{processes.rank}.pt", weights_only=True))
    losses, norms = [], []
    for step in range(first, settings.get("steps", 5)):
        batches = micro_batches(step, strategy.data_rank, strategy.data_size, rows, vocabulary)
        units = sum(batch.units for batch in micro_batches(step, 0, 1, rows, vocabulary))
        result = strategy.step(batches, objective, units=units, learning_rate=3e-3, max_grad_norm=0.5)
        losses.append(result.loss)
        norms.append(result.grad_norm)
        if step + 1 == settings.get("save"):
            torch.save(strategy.state(), out / f"state-{processes.rank}.pt")
    held_out = micro_batches(99, strategy.data_rank, strategy.data_size, GLOBAL_ROWS // strategy.data_size, vocabulary)
    evaluated = strategy.evaluate(held_out, objective)
    state = strategy.gather(keep=processes.rank == 0, dtype=None, whole=not settings.get("lora"))
    if processes.rank == 0:
        torch.save(state, out / "gathered.pt")
        if settings.get("export"):
            model.save_pretrained(out / "exported", state_dict=state)
        (out / "result.json").write_text(
            json.dumps({"losses": losses, "norms": norms, "evaluated": evaluated, "names": sorted(state)})
        )
    processes.meet()


if __name__ == "__main__":
    main()
