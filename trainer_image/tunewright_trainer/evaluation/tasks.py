"""The task files of evaluation.harness, read without lm-evaluation-harness: prepare looks at them before training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError, not_readable


class _Loader(yaml.SafeLoader):
    """YAML of task files, whose functions (`!function module.name`) stay unread."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def check_tasks(tasks: Sequence[str], directory: Path) -> None:
    """Find the tasks, and the data that their files name.

    Raises:
        StageError: INPUT_NOT_READABLE without the directory, INVALID_CONFIG for a task that is not there, INVALID_DATA
            for data that are not.
    """
    if not directory.is_dir():
        raise not_readable(directory, "evaluation.harness.uri is not a directory")
    known: dict[str, Path] = {}
    damaged: list[str] = []
    for file in sorted(directory.glob("**/*.yaml")):
        try:
            content = yaml.load(file.read_text(), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            damaged.append(f"{file.name} is not valid YAML: {' '.join(str(error).split())}")
            continue
        if isinstance(content, dict) and isinstance(content.get("task"), str):
            known[content["task"]] = file
            if content["task"] in tasks:
                _check_data(content, file, directory)
    if missing := [task for task in tasks if task not in known]:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"evaluation.harness.tasks: {directory} has no task {', '.join(missing)}, only "
            f"{', '.join(sorted(known)) or 'none'}{''.join(f'; {why}' for why in damaged)}: correct the names or add a "
            "YAML file with `task: NAME`",
        )


def _check_data(content: dict[str, Any], file: Path, directory: Path) -> None:
    arguments = content.get("dataset_kwargs")
    files = _names(arguments.get("data_files")) if isinstance(arguments, dict) else []
    # The tasks run in their directory. Patterns and addresses are the harness's own business.
    absent = [name for name in files if not set("*?[:") & set(name) and not (directory / name).is_file()]
    if absent:
        raise StageError(
            ExitCode.INVALID_DATA,
            f"evaluation.harness: {file.name} reads {absent[0]}, which {directory} does not have: put it there, or "
            "correct dataset_kwargs.data_files",
        )


def _names(value: object) -> Iterator[str] | list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (name for part in parts for name in _names(part))
