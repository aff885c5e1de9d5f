"""extraArgs of an InferenceService: the apiserver refuses what a typed field, the image or the artifact decides."""

import pytest

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.rest import ApiError
from e2e.cluster.wait import wait_for
from tests.integration.test_contract import GROUP, ROOT
from tunewright_api.engine import RESERVED_ARGUMENTS

SERVICES = f"{GROUP}/inferenceservices"


@pytest.fixture(scope="module")
def contract(apiserver: ControlPlane) -> ControlPlane:
    """An apiserver that serves InferenceServices: it has then also found their rules cheap enough."""
    path = ROOT / "crds" / "tunewright.io_inferenceservices.yaml"
    apiserver.kubectl("apply", "--server-side", "-f", str(path))
    wait_for("InferenceServices served", lambda: apiserver.exists(SERVICES), 30)
    return apiserver


def create(contract: ControlPlane, *arguments: str) -> None:
    """Create a service with these arguments, without storing it."""
    contract.api.create(
        f"{SERVICES}?dryRun=All",
        {
            "apiVersion": "tunewright.io/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": "guide", "namespace": "default"},
            "spec": {"model": {"versionRef": {"name": "guide-v1"}}, "engine": {"extraArgs": list(arguments)}},
        },
    )


ALLOWED = [
    pytest.param("--reasoning-parser=qwen3", id="a name that begins a reserved one"),
    pytest.param("--enable-auto-tool-choice", id="a switch"),
    pytest.param("--max_num_batched_tokens=4096", id="underscores"),
    pytest.param("--compilation-config.cudagraph_mode=NONE", id="one key of a JSON argument"),
    pytest.param("--kv-cache-dtype=fp8", id="a setting without a typed field"),
]


@pytest.mark.parametrize("argument", ALLOWED)
def test_an_argument_without_a_typed_field_is_taken(contract: ControlPlane, argument: str) -> None:
    create(contract, argument)


REFUSED = [
    *(pytest.param(f"--{name}=x", id=name) for name in RESERVED_ARGUMENTS),
    pytest.param("--max-model-l=4", id="shortened"),
    pytest.param("--max_model_len=4", id="with underscores"),
    pytest.param("--override-generation-config.temperature=1", id="one key of a reserved JSON argument"),
    pytest.param("--compilation-config.mode", id="a dotted name without a value, which would take the next argument"),
    pytest.param("-tp=2", id="a short name"),
    pytest.param("--seed 1", id="two words"),
    pytest.param("/models/other", id="a position"),
]


@pytest.mark.parametrize("argument", REFUSED)
def test_a_reserved_argument_is_refused(contract: ControlPlane, argument: str) -> None:
    with pytest.raises(ApiError, match=r"extraArgs"):
        create(contract, "--seed=1", argument)
