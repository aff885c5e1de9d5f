"""What a run has in common with the one that goes on from its checkpoints."""

import hashlib

from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.checkpoint.directory import Description
from tunewright_trainer.layout import Layout
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.plan import RunPlan
from tunewright_trainer.processes import Processes


def describe(config: TrainerConfig, plan: RunPlan, strategy: Strategy, processes: Processes) -> Description:
    """Of a run whose dataset is prepared."""
    h = config.hyperparameters
    deepspeed = config.distributed.deepspeed if config.distributed else None
    return Description(
        strategy=type(strategy).__name__ + (f" stage {deepspeed.zero_stage}" if deepspeed else ""),
        processes=processes.world_size,
        global_batch=plan.global_batch,
        records=plan.records,
        seed=h.seed,
        model=" ".join(filter(None, (config.model.uri, config.model.revision))),
        dataset=_fingerprint(Layout(config)),
        objective=config.objective.model_dump_json(by_alias=True, exclude_none=True),
        method=config.method.model_dump_json(by_alias=True, exclude_none=True),
        optimizer=h.optimizer.value,
        precision=h.precision.value,
    )


def _fingerprint(layout: Layout) -> str:
    """Digest of the split, which follows from the content of every record, and of the sizes of the arrays.

    The arrays themselves may be larger than what can be read at each start.
    """
    digest = hashlib.sha256(layout.train_records.read_bytes())
    for array in sorted(layout.dataset.glob("*.bin")):
        digest.update(f"{array.name} {array.stat().st_size}\n".encode())
    return f"sha256:{digest.hexdigest()}"
