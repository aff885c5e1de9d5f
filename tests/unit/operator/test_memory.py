"""The memory estimate of prepare: told in the status, and no GPU is queued for a job that cannot fit."""

from typing import Any

import pytest

from tests.serving import conditions
from tests.training import RESULTS, Cluster, advance, job, settle
from tunewright_api.names import Stage
from tunewright_api.results import MemoryEstimate
from tunewright_operator.reconcile import finetunejob as reconciler

GIB = 2**30
ESTIMATE = MemoryEstimate(device_bytes=60 * GIB, advice=["hyperparameters.gradientCheckpointing: true (30.0 GiB less)"])


@pytest.fixture(autouse=True)
def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """prepare reports 60 GiB per device, and no pod can be reached."""

    async def nothing(host: str, port: int) -> None:
        return None

    monkeypatch.setattr(reconciler, "fetch_progress", nothing)
    prepared = RESULTS[Stage.PREPARE]
    assert prepared.prepare is not None
    found = prepared.prepare.model_copy(update={"estimate": ESTIMATE})
    monkeypatch.setitem(RESULTS, Stage.PREPARE, prepared.model_copy(update={"prepare": found}))


@pytest.mark.parametrize(
    ("selector", "want"),
    [
        pytest.param(None, {"memoryPerDevice": "60.0Gi"}, id="nobody knows the GPU: only told"),
        pytest.param(
            {"nvidia.com/gpu.memory": "81920"},
            {"memoryPerDevice": "60.0Gi", "gpuMemory": "80.0Gi", "fits": True},
            id="the label of the memory",
        ),
        pytest.param(
            {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
            {"memoryPerDevice": "60.0Gi", "gpuMemory": "80.0Gi", "fits": True},
            id="the label of the product",
        ),
        pytest.param(
            {"nvidia.com/gpu.product": "Tesla-T4"}, {"memoryPerDevice": "60.0Gi"}, id="a product without size"
        ),
    ],
)
async def test_a_job_that_may_fit_is_trained(selector: dict[str, str] | None, want: dict[str, Any]) -> None:
    cluster, obj = Cluster(), job(**({"scheduling": {"nodeSelector": selector}} if selector else {}))
    await advance(cluster, obj, Stage.TRAIN)
    assert obj["status"]["estimate"] == want
    assert cluster.job(Stage.TRAIN)


async def test_a_job_that_cannot_fit_queues_no_gpu() -> None:
    cluster, obj = Cluster(), job(scheduling={"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-PCIE-40GB"}})
    await advance(cluster, obj, Stage.PREPARE)
    cluster.succeed(Stage.PREPARE)
    await settle(cluster, obj)
    assert cluster.job(Stage.TRAIN) is None
    status = obj["status"]
    assert status["estimate"] == {"memoryPerDevice": "60.0Gi", "gpuMemory": "40.0Gi", "fits": False}
    told = conditions(obj)
    assert told["DatasetReady"] == ("True", "Succeeded")
    assert told["Failed"] == told["Stalled"] == ("True", "DoesNotFit")
    assert status["message"] == (
        "training needs about 60.0Gi on each GPU, and scheduling.nodeSelector asks for GPUs of 40.0Gi. Nothing "
        "was queued for them. What would help most: hyperparameters.gradientCheckpointing: true (30.0 GiB less). What "
        "to do: change the settings, or ask for larger GPUs, in a FineTuneJob with a new name"
    )
