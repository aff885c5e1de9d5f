"""Tasks of lm-evaluation-harness from a local directory: YAML files with their data beside them, no download.

A task file may call Python functions of the same directory (`!function`): they run in this container.
"""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_api.evaluation import Harness
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError
from tunewright_trainer.evaluation.tasks import check_tasks

_BATCH = 8


@dataclass(frozen=True)
class TaskScore:
    """The first metric of a task."""

    task: str
    metric: str
    value: float


def run_tasks(harness: Harness, directory: Path, model: Any, tokenizer: Any, *, seed: int) -> list[TaskScore]:
    """Score a model on the tasks, in their order.

    Raises:
        StageError: As `check_tasks`; INVALID_CONFIG for a task that does not work, or whose first metric is better when
            it is lower.
    """
    check_tasks(harness.tasks, directory)
    import torch
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    scored = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
    with contextlib.chdir(directory):
        try:
            found = simple_evaluate(
                model=scored,
                tasks=list(harness.tasks),
                task_manager=TaskManager(include_path=str(directory), include_defaults=False),
                bootstrap_iters=0,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            # Templates, functions and data of the task's author: any exception may come out of them.
            first = next(iter(str(error).splitlines()), "")
            raise StageError(
                ExitCode.INVALID_CONFIG,
                f"evaluation.harness: a task of {directory} ({', '.join(harness.tasks)}) does not work: "
                f"{type(error).__name__}: {first}: correct its YAML file, or try it with `lm-eval --include_path`",
            ) from error
    return [read_score(found, task) for task in harness.tasks]


def read_score(found: dict[str, Any], task: str) -> TaskScore:
    """The first metric of a task in what simple_evaluate returns."""
    results = found["results"].get(task, {})
    name = next((key for key, value in results.items() if "," in key and isinstance(value, float)), None)
    if name is None:
        raise StageError(
            ExitCode.INVALID_CONFIG, f"evaluation.harness.tasks: {task} has no metric of its own: write single tasks"
        )
    metric = name.partition(",")[0]
    if not found["higher_is_better"].get(task, {}).get(metric, True):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"evaluation.harness.tasks: {metric}, the first metric of {task}, is better when it is lower, and "
            "HarnessScore is better when it is higher: put another metric first in its metric_list",
        )
    return TaskScore(task, metric, results[name])
