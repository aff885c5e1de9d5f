"""The rules of the models, in the file's language too: CEL, as the apiserver evaluates it.

A FineTuneJob has passed them before its configuration file is made; a file that a person wrote has not.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cel_expr_python import cel

from tunewright_api.base import Model, Rule
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.trainer_config import TrainerConfig

_ENVIRONMENT = cel.NewEnv(variables={"self": cel.Type.DYN})


def violations(config: Model) -> list[str]:
    """A sentence for each rule that a configuration breaks: of the job as a whole, then of each of its parts."""
    with _signals_wait():
        of_job = list(_of_job(config)) if isinstance(config, TrainerConfig) else []
        return of_job + list(_of_parts(config, ()))


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold signals back: what a handler raises inside the library would come out of it as a RuntimeError."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda arrived, _: heard.append(arrived)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for arrived in dict.fromkeys(heard):
        signal.raise_signal(arrived)


def _of_job(config: TrainerConfig) -> Iterator[str]:
    processes = config.rendezvous
    # What the rules of FineTuneJobSpec look at, under the names that it has there.
    spec = {**config.to_dict(), "numNodes": processes.nodes, "numProcPerNode": processes.processes_per_node}
    return (rule.message for rule in FineTuneJobSpec.cel if not _holds(rule, spec))


def _of_parts(value: object, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, Model):
        content = value.to_dict()
        yield from (_located(rule.message, path) for rule in value.cel if not _holds(rule, content))
        for name, field in type(value).model_fields.items():
            yield from _of_parts(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _of_parts(part, (*path, str(index)))


def _located(message: str, path: tuple[str, ...]) -> str:
    """The message with its field's path in front, once: most messages begin with the end of it."""
    where = ".".join(path)
    if message.startswith(where):
        return message
    ends = {part for part in path if not part.isdigit()}
    start, _, rest = message.partition(": ")
    return f"{where}: {rest if start in ends else message}"


def _holds(rule: Rule, content: dict[str, Any]) -> bool:
    return _compiled(rule.rule).eval(data={"self": content}).value() is True


@cache
def _compiled(rule: str) -> cel.Expression:
    return _ENVIRONMENT.compile(rule)
