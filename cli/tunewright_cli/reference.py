"""docs/reference/cli.md from the declared commands and checks: `python -m tunewright_cli.reference [--check]`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunewright_cli.checks import CHECKS, Check
from tunewright_cli.exits import Exit
from tunewright_cli.spec import CLUSTER, COMMANDS, Command, Parameter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
_HEADER = "<!-- Generated from cli/tunewright_cli by `make generate`. Do not edit. -->\n"
_INTRO = """
# Command line reference

`tunewright COMMAND`; also installed as `kubectl-tunewright`, so `kubectl tunewright COMMAND` does the same. [How to use
it](../cli.md).
"""
_ENVIRONMENT = (
    (
        "KUBECONFIG",
        "Kubeconfig files, merged as kubectl merges them; ~/.kube/config if absent, or the pod's own account.",
    ),
    ("HTTPS_PROXY, NO_PROXY", "Proxy on the way to the apiserver, unless the kubeconfig names one."),
    ("NO_COLOR", "No colours; every mark can be read without them."),
    ("COLUMNS", "Width of the screens where there is no terminal; 120 if absent."),
    ("TUNEWRIGHT_DEBUG", "Show where a fault of the command itself comes from."),
)


def render() -> str:
    """The page."""
    parts = [_HEADER, _INTRO]
    parts.append(_table("Exit codes", ("code", "means"), [(str(code.value), code.meaning) for code in Exit]))
    parts.append(_table("Options of every command", _COLUMNS, [_row(one) for one in CLUSTER]))
    parts.append(_table("Environment", ("variable", "meaning"), [(f"`{name}`", text) for name, text in _ENVIRONMENT]))
    parts.append("## Commands\n")
    parts += [_command(command) for command in COMMANDS]
    rows = [(_title(check), (check.__doc__ or "").splitlines()[0]) for check in CHECKS]
    parts.append(_table("What `tunewright check` looks for", ("check", "finds"), rows))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


_COLUMNS = ("option", "value", "default", "meaning")


def _command(command: Command) -> str:
    """Usage, examples and parameters of one command."""
    usage = " ".join(["tunewright", command.name, *_places(command)])
    lines = [f"### `{usage}`\n", f"{command.help}\n", "```sh", *command.examples, "```\n"]
    rows = [_row(one) for one in command.parameters]
    return "\n".join(lines) + "\n" + _rows(_COLUMNS, rows)


def _title(check: Check) -> str:
    """`approval: binding`."""
    return f"{check.__module__.rpartition('.')[2]}: {check.__name__.replace('_', ' ')}"


def _places(command: Command) -> Iterator[str]:
    for one in command.parameters:
        if not one.flags:
            yield one.name.upper() if one.required else f"[{one.name.upper()}]"


def _row(one: Parameter) -> tuple[str, ...]:
    name = ", ".join(f"`{flag}`" for flag in one.flags) if one.flags else f"`{one.name.upper()}`"
    value = ", ".join(f"`{choice}`" for choice in one.choices) or one.metavar
    value = value or ("" if one.kind is bool or not one.flags else _KINDS[one.kind])
    default = "required" if one.required else f"`{one.default}`" if one.default else ""
    return name, value, default, one.help


_KINDS = {str: "text", int: "whole number", float: "number"}


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return f"## {title}\n\n" + _rows(columns, rows)


def _rows(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> int:
    """Write the page, or with --check fail when it differs."""
    parser = argparse.ArgumentParser(prog="python -m tunewright_cli.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page differs")
    text = render()
    if not parser.parse_args().check:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    sys.stderr.write(f"{PAGE} differs from the commands: run `make generate` and commit the result\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
