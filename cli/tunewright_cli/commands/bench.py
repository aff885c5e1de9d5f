"""`tunewright bench`: a streaming load, and how fast the answers came."""

import gc
import json
import sys
from pathlib import Path

from tunewright_cli.commands.reach import reach
from tunewright_cli.console import make_console
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.kinds import parse_reference
from tunewright_cli.load.runner import run_load
from tunewright_cli.load.statistics import Sample, report
from tunewright_cli.parse import Target
from tunewright_cli.views.bench import render_bench

# Different beginnings, so that no cache of prefixes answers for the model.
PROMPTS = tuple(
    f"{opening} {subject}."
    for opening in ("Explain", "Write a short story about", "List five facts about", "Ask me a question about")
    for subject in ("rain", "bridges", "the number seven", "old maps", "bread", "sleep", "gravity", "rivers")
)


def run(
    target: Target,
    _: str,
    *,
    service: str,
    requests: int,
    concurrency: int,
    prompt_file: str,
    max_tokens: int,
    revision: str,
    url: str,
    model: str,
    timeout: float,
    output: str,
) -> Exit:
    """Send the load and print the figures; exit code 1 when an answer was not whole."""
    gc.enable()
    prompts = read_prompts(prompt_file) if prompt_file else PROMPTS
    endpoint = reach(target, service, revision, url, timeout)
    progress = _Progress(requests)
    samples = run_load(
        endpoint,
        model or parse_reference(service)[1],
        prompts,
        requests=requests,
        concurrency=concurrency,
        max_tokens=max_tokens,
        seen=progress.seen,
    )
    progress.end()
    figures = report(samples, min(concurrency, requests))
    if output == "json":
        sys.stdout.write(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    else:
        make_console().print(render_bench(endpoint.name, figures))
    return Exit.ERROR if figures["errors"] else Exit.OK


def read_prompts(path: str) -> list[str]:
    """One prompt a line; empty lines are none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise CliError(f"{path} cannot be read ({error.strerror}): give --prompt-file another file") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise CliError(f"{path} has no prompt: write one a line")
    return prompts


class _Progress:
    """How many answers have come, on a terminal alone."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._errors = total, 0, 0
        self._shown = sys.stderr.isatty()

    def seen(self, sample: Sample) -> None:
        """One more."""
        self._done += 1
        self._errors += bool(sample.error)
        if self._shown:
            sys.stderr.write(f"\r{self._done}/{self._total} answers, {self._errors} errors ")
            sys.stderr.flush()

    def end(self) -> None:
        """Wipe the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
