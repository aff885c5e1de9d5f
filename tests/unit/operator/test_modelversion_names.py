"""Names of the children of a ModelVersion."""

import re

import pytest

from tunewright_operator.manifests.naming import MAX_NAME, child_name


@pytest.mark.parametrize(
    ("owner", "want"),
    [
        ("guide-v1", "guide-v1-verify"),
        ("guide-v1.2", "guide-v1-2-b54aad-verify"),
        ("a" * 40 + "-" + "1" * 20, "a" * 40 + "-" + "1" * 8 + "-09f183-verify"),
    ],
    ids=["short", "with a dot", "long"],
)
def test_child_names(owner: str, want: str) -> None:
    name = child_name(owner, "verify")
    assert name == want
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_a_dot_and_a_dash_give_different_names() -> None:
    assert child_name("guide-v1.2", "verify") != child_name("guide-v1-2", "verify")
