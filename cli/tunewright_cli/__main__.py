"""`tunewright` and `kubectl tunewright`: run a command; an error is one sentence, and its exit code says which kind."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tunewright_cli.exits import CliError, Exit
from tunewright_cli.parse import Call, parse


def main() -> None:
    """Run the command line of this process."""
    # A command allocates once and ends: looking for garbage costs a tenth of the start. Those that stay turn it on.
    gc.disable()
    raise SystemExit(run(sys.argv[1:], _program(sys.argv[0])))


def run(arguments: Sequence[str], program: str = "tunewright") -> Exit:
    """Run a command line; returns the exit code, after an error has been told in one sentence."""
    try:
        call = parse(arguments) or _parse_with_typer(arguments, program)
        return call if isinstance(call, Exit) else _execute(call)
    except CliError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return error.code
    except KeyboardInterrupt:
        # Only `get -w` and `chat` end by Ctrl-C, and they say so themselves: all else is not done.
        return Exit.ERROR
    except BrokenPipeError:
        # The reader has enough (`tunewright get | head`); what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        if os.environ.get("TUNEWRIGHT_DEBUG"):
            raise
        advice = "set TUNEWRIGHT_DEBUG=1 to see where, and report it"
        sys.stderr.write(f"{program}: a fault of this command ({type(error).__name__}: {error}): {advice}\n")
        return Exit.ERROR


def _parse_with_typer(arguments: Sequence[str], program: str) -> Call | Exit:
    from tunewright_cli.app import parse_with_typer

    return parse_with_typer(arguments, program)


def _execute(call: Call) -> Exit:
    module = import_module(f"tunewright_cli.commands.{call.command.module}")
    code: Exit = module.run(call.target, call.command.name, **call.values)
    return code


def _program(path: str) -> str:
    """How the user called us."""
    return "kubectl tunewright" if Path(path).name.startswith("kubectl-") else "tunewright"


if __name__ == "__main__":
    main()
