"""The typer application, built from `spec`: help, the reference page, and what is wrong with a command line."""

import inspect
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Annotated, Any

import typer

from tunewright_cli.exits import Exit
from tunewright_cli.parse import Call, Target
from tunewright_cli.spec import CLUSTER, COMMANDS, Command, Parameter

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in Exit) + "."
_PANEL = "Cluster"


class ParsedError(Exception):
    """Carries a command line that typer has read out of typer, which would run it by itself."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.command.name)
        self.call = call


@cache
def build_app() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Train, approve, serve and roll out fine-tuned language models: what is there, why it is not ready, and "
        "what to do.",
        epilog=EPILOG,
    )
    for command in COMMANDS:
        examples = "\n\n".join(f"Example: {example}" for example in command.examples)
        app.command(command.name, help=command.help, epilog=f"{examples}\n\n{EPILOG}")(_function(command))

    @app.callback()
    def tunewright() -> None:
        """Without it typer would make an application of one command of it."""

    return app


def parse_with_typer(arguments: Sequence[str], program: str) -> Call | Exit:
    """The call that the arguments mean, or the exit code after typer has printed help or what is wrong."""
    try:
        build_app()(args=list(arguments), prog_name=program)
    except ParsedError as parsed:
        return parsed.call
    except SystemExit as ended:
        # typer ends with 2 after a wrong argument, which is our code for "not ready".
        return Exit.OK if not ended.code else Exit.ERROR
    return Exit.OK


def _function(command: Command) -> Any:
    """A function with the signature that typer reads options from."""

    def parsed(**given: Any) -> None:
        target = Target(*(given.pop(one.name) for one in CLUSTER))
        values = {one.name: _plain(one, given[one.name]) for one in command.parameters}
        raise ParsedError(Call(command, target, values))

    parameters = [
        *(_parameter(one, command) for one in command.parameters),
        *(_parameter(one, command, _PANEL) for one in CLUSTER),
    ]
    parsed.__dict__["__signature__"] = inspect.Signature(parameters)
    parsed.__annotations__ = {one.name: one.annotation for one in parameters}
    return parsed


def _parameter(one: Parameter, command: Command, panel: str | None = None) -> inspect.Parameter:
    kind: Any = StrEnum(one.name.title(), {word.upper(): word for word in one.choices}) if one.choices else one.kind
    default = inspect.Parameter.empty if one.required else one.default
    if default is None or (one.choices and not one.default):
        kind, default = kind | None, None
    info: Any
    if one.flags:
        info = typer.Option(
            *one.flags,
            help=one.help,
            metavar=one.metavar or None,
            rich_help_panel=panel,
            min=one.minimum,
            show_default=bool(one.default),
        )
    else:
        info = typer.Argument(help=one.help, metavar=one.name.upper(), show_default=False)
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _plain(one: Parameter, value: Any) -> Any:
    """The value as `parse` gives it."""
    if value is None:
        return one.default
    return value.value if isinstance(value, StrEnum) else value
