"""Write what follows from the models: `python -m tunewright_api.generate [--check]`.

CRDs in crds/, their copies in the chart, and the API reference in docs/. With --check nothing is written, and the
exit code is 1 when a file differs.
"""

import argparse
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tunewright_api.crd import build_crds
from tunewright_api.reference import api_reference, names_reference

ROOT = Path(__file__).resolve().parents[2]
_HEADER = "# Generated from crds/tunewright_api by `make generate`. Do not edit.\n"


def render() -> dict[str, str]:
    """Path below the repository -> content of every generated file."""
    files = {}
    for name, crd in build_crds().items():
        files[f"crds/{name}"] = _HEADER + _dump(crd)
        kept = {**crd, "metadata": {**crd["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}}
        files[f"charts/tunewright/templates/crds/{name}"] = _HEADER + _escape(_dump(kept))
    files["docs/reference/api.md"] = api_reference()
    files["docs/reference/names.md"] = names_reference()
    return files


def _dump(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)


def _escape(text: str) -> str:
    """Keep Helm from reading braces of a description as a template."""
    return text.replace("{{", "{{ `{{` }}")


def run(module: str, description: str | None, files: Mapping[str, str]) -> int:
    """The command line of a module that makes these files; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a generated file differs")
    check = parser.parse_args().check
    stale = 0
    for name, text in files.items():
        path = ROOT / name
        old = path.read_text() if path.exists() else ""
        if old == text:
            continue
        stale += 1
        if check:
            diff = difflib.unified_diff(old.splitlines(), text.splitlines(), name, "generated", lineterm="", n=1)
            sys.stderr.write("\n".join(list(diff)[:40]) + "\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")
    if check and stale:
        sys.stderr.write(f"{stale} generated files differ from the code: run `make generate` and commit the result\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run("tunewright_api.generate", __doc__, render()))
