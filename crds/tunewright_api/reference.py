"""Reference pages in Markdown, made from the models and the names."""

from collections.abc import Iterator
from typing import Any

from tunewright_api.crd import KINDS, build_schema
from tunewright_api.names import ConditionType, ExitCode

_HEADER = "<!-- Generated from crds/tunewright_api by `make generate`. Do not edit. -->\n"


def api_reference() -> str:
    """docs/reference/api.md: every field of the three kinds."""
    parts = [_HEADER, "# API reference: tunewright.io/v1alpha1\n"]
    for kind in KINDS:
        schema = build_schema(kind)
        parts.append(f"## {kind.name} (`{kind.short}`)\n\n{schema['description']}\n")
        for section in ("spec", "status"):
            rows = list(_rows(schema["properties"][section], section))
            parts.append(f"### {kind.name}.{section}\n")
            parts.append("| field | type | default | meaning |\n|---|---|---|---|")
            parts.append("\n".join(rows) + "\n")
        rules = list(_rules(schema, ""))
        if rules:
            parts.append(f"### Rules of {kind.name}\n\nThe apiserver refuses an object that breaks one of them:\n")
            parts.append("\n".join(f"- {rule}" for rule in rules) + "\n")
    return "\n".join(parts)


def names_reference() -> str:
    """docs/reference/names.md: exit codes and condition types."""
    codes = "\n".join(f"| {code.value} | {code.reason} | {'yes' if code.retriable else 'no'} |" for code in ExitCode)
    conditions = "\n".join(f"- `{kind.value}`" for kind in ConditionType)
    return (
        f"{_HEADER}\n# Names\n\n## Exit codes of the trainer and server images\n\n"
        f"| code | reason | tried again |\n|---|---|---|\n{codes}\n\n## Condition types\n\n{conditions}\n"
    )


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        default = "required" if required else _cell(child.get("default"))
        yield f"| `{path}.{name}` | {_type(child)} | {default} | {_cell(child['description'], code=False)} |"
        yield from _rows(child, f"{path}.{name}")
        if "items" in child:
            yield from _rows(child["items"], f"{path}.{name}[]")


def _rules(schema: dict[str, Any], path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        where = f"`{path}`: " if path else ""
        yield where + rule["message"].replace("|", "\\|")
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    bounds = []
    if "minimum" in schema:
        bounds.append(("> " if schema.get("exclusiveMinimum") else "≥ ") + str(schema["minimum"]))
    if "maximum" in schema:
        bounds.append(("< " if schema.get("exclusiveMaximum") else "≤ ") + str(schema["maximum"]))
    return str(schema["type"]) + (f" ({', '.join(bounds)})" if bounds else "")


def _cell(value: Any, *, code: bool = True) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text.replace("|", "\\|").replace("\n", " ")
    return f"`{text}`" if code else text
