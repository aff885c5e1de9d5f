"""The command line: what is read without typer means what typer reads, and what is wrong gets typer's sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.conftest import SNAPSHOTS
from tunewright_cli.__main__ import run
from tunewright_cli.app import parse_with_typer
from tunewright_cli.exits import Exit
from tunewright_cli.parse import Call, Target, parse
from tunewright_cli.reference import PAGE, render
from tunewright_cli.spec import CLUSTER, COMMANDS, Command, Parameter

ROOT = Path(__file__).resolve().parents[3]


def value_of(one: Parameter) -> st.SearchStrategy[str]:
    """Texts that are good values."""
    if one.choices:
        return st.sampled_from(one.choices)
    if one.kind is int:
        return st.integers(min_value=1, max_value=999).map(str)
    if one.kind is float:
        return st.floats(min_value=0.1, max_value=99, allow_nan=False).map(lambda number: f"{number:.2f}")
    return st.from_regex(r"[a-z][a-z0-9 ./?-]{0,12}[a-z]", fullmatch=True)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Correct command lines of every command."""
    command: Command = draw(st.sampled_from(COMMANDS))
    words: list[list[str]] = []
    for one in (*command.parameters, *CLUSTER):
        if not one.flags:
            if one.required or draw(st.booleans()):
                words.append([draw(value_of(one))])
        elif one.required or draw(st.booleans()):
            flag = draw(st.sampled_from(one.flags))
            if one.kind is bool:
                words.append([flag])
            elif flag.startswith("--") and draw(st.booleans()):
                words.append([f"{flag}={draw(value_of(one))}"])
            else:
                words.append([flag, draw(value_of(one))])
    # Arguments keep their order; options stand anywhere.
    places = [word for word in words if not word[0].startswith("-")]
    options = draw(st.permutations([word for word in words if word[0].startswith("-")]))
    cut = draw(st.integers(min_value=0, max_value=len(options)))
    return [command.name, *(text for word in [*options[:cut], *places, *options[cut:]] for text in word)]


@given(lines())
def test_both_readers_understand_the_same(arguments: list[str]) -> None:
    quick = parse(arguments)
    assert quick is not None
    assert quick == parse_with_typer(arguments, "tunewright")


@pytest.mark.parametrize(
    ("arguments", "target", "values"),
    [
        (
            ["get"],
            Target(),
            {"name": "", "watch": False, "output": "", "all_namespaces": False},
        ),
        (
            ["get", "guide", "-n", "team", "-w", "-o=wide"],
            None,
            {},
        ),
        (
            ["get", "tis/guide", "-n", "team", "-w", "--output=wide", "--as", "olivia"],
            Target(namespace="team", impersonate="olivia"),
            {"name": "tis/guide", "watch": True, "output": "wide", "all_namespaces": False},
        ),
        (
            ["pause", "guide", "--no-wait", "--timeout", "2.5"],
            Target(),
            {"service": "guide", "revision": "", "no_wait": True, "timeout": 2.5},
        ),
        (["get", "-wA"], None, {}),
        (["get", "--watch=yes"], None, {}),
        (["get", "a", "b"], None, {}),
        (["get", "--nope"], None, {}),
        (["reject", "guide-v1"], None, {}),
        (["bench", "guide", "--requests", "0"], None, {}),
        (["bench", "guide", "--requests", "many"], None, {}),
        (["ask", "guide", "--", "-5 + 3?"], None, {}),
        (["--help"], None, {}),
        ([], None, {}),
    ],
)
def test_only_plain_lines_are_read_without_typer(
    arguments: list[str], target: Target | None, values: dict[str, Any]
) -> None:
    call = parse(arguments)
    assert (call and (call.target, call.values)) == (target and (target, values))


def test_typer_reads_what_is_unusual() -> None:
    call = parse_with_typer(["get", "-wn", "team"], "tunewright")
    assert isinstance(call, Call)
    assert (call.target, call.values["watch"]) == (Target(namespace="team"), True)
    question = parse_with_typer(["ask", "guide", "--", "-5 + 3?"], "tunewright")
    assert isinstance(question, Call)
    assert question.values["question"] == "-5 + 3?"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "--nope"], "No such option: --nope"),
        (["fetch"], "No such command 'fetch'"),
        (["approve"], "Missing argument 'VERSION'"),
        (["reject", "guide-v1"], "Missing option '--reason'"),
        (["get", "-o", "yaml"], "is not one of"),
        (["bench", "guide", "--requests", "0"], "--requests"),
    ],
)
def test_a_wrong_line_is_an_error_of_code_1(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) is Exit.ERROR
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in told


def test_every_help_has_an_example_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert run([command.name, "--help"]) is Exit.OK
        told = " ".join(capsys.readouterr().out.split())
        assert "Example: tunewright" in told
        assert "Exit codes: 0 done" in told


def test_the_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) is Exit.OK
    text = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines()) + "\n"
    path = SNAPSHOTS / "help.txt"
    if os.environ.get("REWRITE_SNAPSHOTS"):
        path.write_text(text)
    assert text == path.read_text()


def test_the_reference_page_is_what_the_commands_are() -> None:
    assert PAGE.read_text() == render()


def test_every_command_takes_what_it_declares() -> None:
    """The values of a call are the keyword arguments of the module that runs it."""
    import inspect
    from importlib import import_module

    for command in COMMANDS:
        run_it = import_module(f"tunewright_cli.commands.{command.module}").run
        taken = [one.name for one in inspect.signature(run_it).parameters.values() if one.kind is one.KEYWORD_ONLY]
        assert sorted(taken) == sorted(one.name for one in command.parameters), command.name


# --- what the first screen must not wait for ---------------------------------------------------

SLOW = {
    "kubernetes",
    "aiohttp",
    "torch",
    "typer",
    "click",
    "pydantic",
    "requests",
    "urllib3",
    "asyncio",
    "concurrent.futures",
    "logging",
    "websocket",
    "tunewright_operator",
    "tempfile",
}


def test_get_imports_nothing_slow(tmp_path: Path) -> None:
    """Everything that `get` needs up to its first request, which nobody answers."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(json.dumps(config))
    script = (
        "import sys, json\n"
        "from tunewright_cli.__main__ import run\n"
        f"code = run(['get', '--kubeconfig', {str(kubeconfig)!r}])\n"
        "print(json.dumps([int(code), sorted(sys.modules)]))"
    )
    env = {"PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'cli'}", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout)
    assert (code, "nothing listens at http://127.0.0.1:9" in done.stderr) == (1, True)
    assert SLOW & set(modules) == set()
    assert {"rich.console", "tunewright_cli.views.forest"} <= set(modules)
