"""Every alert has a page, every page has an alert, and what a page tells people to type and to set is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tunewright_api.names import LABEL_KIND, LABEL_NAME, LABEL_STAGE
from tunewright_cli.parse import parse
from tunewright_cli.spec import find_command
from tunewright_monitoring.alerts import ALERTS
from tunewright_monitoring.rules import Alert

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["What it means", "What users feel", "First look", "Causes and what to do", "When to escalate"]

pages = pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)


def fields() -> set[str]:
    """Every field of our kinds and every value of the chart, by its whole path; some keys of maps, too."""
    reference = (ROOT / "docs" / "reference" / "api.md").read_text()
    found = set(re.findall(r"^\| `([\w.\[\]]+)`", reference, re.MULTILINE))
    maps = re.findall(r"^\| `([\w.\[\]]+)` \| map of quantity", reference, re.MULTILINE)
    found |= {f"{path}.{key}" for path in maps for key in ("cpu", "memory")}

    def walk(values: dict[str, object], path: str) -> None:
        for name, value in values.items():
            found.add(path + name)
            if isinstance(value, dict):
                walk(value, f"{path}{name}.")

    walk(yaml.safe_load((ROOT / "charts" / "tunewright" / "values.yaml").read_text()), "")
    return found


# podMonitorNamespaceSelector is a field of the Prometheus operator's.
FIELDS = fields() | {"podMonitorNamespaceSelector"}
# A word of code with a dot or a hump in it, maybe with a value: `engine.maxModelLen`, `prefixCaching: true`.
FIELD = re.compile(r"`([a-z]\w*(?:\.\w+)+|[a-z]+[A-Z]\w*)(?:: [^`]+)?`")


def commands(text: str) -> list[str]:
    """Every command of a page: lines of its blocks, and spans of code."""
    blocks = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    spans = re.findall(r"`((?:tunewright|kubectl|helm) [^`]+)`", text)
    return [*blocks, *spans]


def is_command(words: list[str]) -> bool:
    """Whether the command line is correct, or the bare name of a command."""
    return parse(words) is not None or (len(words) == 1 and find_command(words[0]) is not None)


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert sorted(path.stem for path in RUNBOOKS.iterdir()) == sorted(alert.name for alert in ALERTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_page_begins_with_its_alert(alert: Alert) -> None:
    title, _, first, *_ = (RUNBOOKS / f"{alert.name}.md").read_text().split("\n")
    assert title == f"# {alert.name}"
    assert first.startswith(f"{alert.severity.capitalize()}.")
    for threshold in alert.thresholds:
        assert f"`monitoring.thresholds.{threshold}`" in first
    if alert.needs:
        assert alert.needs in first


@pages
def test_a_page_answers_the_same_questions(path: Path) -> None:
    assert re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE) == HEADINGS


@pages
def test_the_first_look_begins_with_one_command(path: Path) -> None:
    first, *_ = commands(path.read_text().split("## First look")[1])
    assert first.startswith(("tunewright why", "tunewright get", "tunewright check", "tunewright bench"))


@pages
def test_every_command_of_ours_is_one(path: Path) -> None:
    ours = [command for command in commands(path.read_text()) if command.startswith("tunewright ")]
    assert [command for command in ours if not is_command(shlex.split(command)[1:])] == []


@pages
def test_every_label_is_one(path: Path) -> None:
    labels = set(re.findall(r"tunewright\.io/[\w-]+", path.read_text()))
    assert labels <= {LABEL_KIND, LABEL_NAME, LABEL_STAGE}


@pages
def test_every_field_is_one(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    unknown = [name for name in FIELD.findall(text) if not any(f".{known}".endswith(f".{name}") for known in FIELDS)]
    assert unknown == []


@pages
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target
