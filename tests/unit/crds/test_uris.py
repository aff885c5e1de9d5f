"""URIs name claims and hub models, and nothing outside of them."""

import re

import pytest

from tunewright_api.uris import MODEL_PATTERN, PVC_PATTERN, hub_id, parse_pvc


@pytest.mark.parametrize(
    ("uri", "mount"),
    [
        ("pvc://data/train.jsonl", "/mnt/claims/data/train.jsonl"),
        ("pvc://data", "/mnt/claims/data"),
        ("pvc://team-a/models/guide/v1", "/mnt/claims/team-a/models/guide/v1"),
    ],
)
def test_a_claim_path_is_mounted(uri: str, mount: str) -> None:
    assert re.fullmatch(PVC_PATTERN, uri)
    assert str(parse_pvc(uri).mount) == mount


@pytest.mark.parametrize(
    "uri", ["pvc://", "pvc://Data/x", "pvc://data/../x", "pvc://data//x", "pvc://data/.ssh", "/data", "s3://b/x"]
)
def test_a_path_cannot_leave_its_claim(uri: str) -> None:
    assert not re.fullmatch(PVC_PATTERN, uri)


def test_hub_models() -> None:
    assert re.fullmatch(MODEL_PATTERN, "hf://meta-llama/Llama-3.3-70B-Instruct")
    assert hub_id("hf://org/name") == "org/name"
    with pytest.raises(ValueError, match="hf://ORG/NAME"):
        hub_id("pvc://a/b")
    with pytest.raises(ValueError, match="pvc://CLAIM/PATH"):
        parse_pvc("hf://org/name")
