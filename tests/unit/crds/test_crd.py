"""The generated CRDs keep the rules that make kubectl, Helm and Argo CD behave."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tunewright_api.crd import KINDS, Kind, build_crd, build_schema
from tunewright_api.generate import ROOT, render

Schema = dict[str, Any]


def walk(schema: Schema, path: str = "", *, in_list: bool = False) -> Iterator[tuple[str, Schema, bool]]:
    """(path, node, whether it lies below a list or map item) of every node."""
    yield path, schema, in_list
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}", in_list=in_list)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]", in_list=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_plain_kubectl_apply_works(kind: Kind) -> None:
    """Client-side apply stores the object in an annotation, which is limited to 256 KiB."""
    assert len(yaml.safe_dump(build_crd(kind))) < 200_000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_every_list_and_text_is_bounded(kind: Kind) -> None:
    """The apiserver's cost estimate of CEL rules needs bounds in everything that a user writes."""
    spec = build_schema(kind)["properties"]["spec"]
    for path, node, _ in walk(spec):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if isinstance(node.get("additionalProperties"), dict):
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_enums_are_camel_case_and_items_have_no_defaults(kind: Kind) -> None:
    for path, node, in_list in walk(build_schema(kind)):
        assert not (in_list and "default" in node), path
        for value in node.get("enum", ()):
            assert not isinstance(value, str) or value[0].isupper(), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)
def test_rules_say_what_to_write(kind: Kind) -> None:
    for path, node, _ in walk(build_schema(kind)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) > 20, path


def test_files_equal_the_models() -> None:
    stale = [name for name, text in render().items() if (ROOT / name).read_text() != text]
    assert stale == [], "run `make generate`"
