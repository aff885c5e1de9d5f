"""A correct command line, read without typer. Whatever is unusual or wrong is left to typer, which explains it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tunewright_cli.spec import CLUSTER, Command, Parameter, find_command


class Target(NamedTuple):
    """Which cluster, which namespace, as whom; empty where the command line does not say."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""
    impersonate: str = ""


class Call(NamedTuple):
    """A command with the values of its parameters."""

    command: Command
    target: Target
    values: dict[str, Any]


class _UnusualError(Exception):
    """Typer shall read this line."""


def parse(arguments: Sequence[str]) -> Call | None:
    """The call that these arguments mean; None when typer has to look at them."""
    command = find_command(arguments[0]) if arguments else None
    if command is None:
        return None
    try:
        given = _read(command, iter(arguments[1:]))
    except _UnusualError:
        return None
    values = {one.name: given.get(one.name, one.default) for one in command.parameters}
    if any(one.required and one.name not in given for one in command.parameters):
        return None
    return Call(command, Target(*(given.get(one.name, "") for one in CLUSTER)), values)


def _read(command: Command, words: Iterator[str]) -> dict[str, Any]:
    options = {flag: one for one in (*command.parameters, *CLUSTER) for flag in one.flags}
    places = [one for one in command.parameters if not one.flags]
    given: dict[str, Any] = {}
    for word in words:
        if not word.startswith("-"):
            if not places:
                raise _UnusualError
            place = places.pop(0)
            given[place.name] = _value(place, word)
            continue
        flag, equals, text = word.partition("=")
        option = options.get(flag)
        if option is None or (equals and (option.kind is bool or not flag.startswith("--"))):
            raise _UnusualError
        if option.kind is bool:
            given[option.name] = True
        else:
            given[option.name] = _value(option, text if equals else next(words, ""))
    return given


def _value(parameter: Parameter, text: str) -> Any:
    if not text or text.startswith("-") or (parameter.choices and text not in parameter.choices):
        raise _UnusualError
    try:
        value = parameter.kind(text)
    except ValueError:
        raise _UnusualError from None
    if parameter.minimum is not None and value < parameter.minimum:
        raise _UnusualError
    return value
