"""Tasks of lm-evaluation-harness from a local directory: YAML files with their data beside them, no download.

A task file may call Python functions of the same directory (`!function`): they run in this container.
"""

import contextlib
import logging
from collections.abc import Iterator
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
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    scored = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
    manager = TaskManager(include_path=str(directory), include_defaults=False)

    def score(task: str) -> TaskScore:
        found = simple_evaluate(
            model=scored,
            tasks=[task],
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=False,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
        return read_score(found, task)

    scores = []
    for task in harness.tasks:
        # Data files are relative to the directory.
        with contextlib.chdir(directory), named(task, directory):
            scores.append(score(task))
    return scores


@contextlib.contextmanager
def named(task: str, directory: Path) -> Iterator[None]:
    """Templates, functions and data are the author's: what comes out of them is a sentence about the task.

    Raises:
        StageError: INVALID_CONFIG.
        Exception: What the machine or the model raised, OSError, MemoryError and RuntimeError (torch's), as it is.
    """
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        # datasets hides the cause: "An error occurred while generating the dataset".
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, (OSError, MemoryError, RuntimeError)) and not isinstance(root, NotImplementedError):
            raise root from error
        first = next(iter(str(root).splitlines()), "")
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"evaluation.harness: the task {task} of {directory} does not work: {type(root).__name__}: {first}: "
            "correct the keys, metrics, templates and functions of its YAML file, or its data",
        ) from error


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
