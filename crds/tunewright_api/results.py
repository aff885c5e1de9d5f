"""What a stage says: `Progress` while it runs (GET /progress), `StageResult` when it ends (termination message).

A termination message holds at most 4096 bytes, so `StageResult.to_message` cuts long texts.
"""

import json
from enum import StrEnum

from pydantic import Field

from tunewright_api.base import Digest, StatusModel
from tunewright_api.evaluation import MetricName, Sample
from tunewright_api.method import AdapterType

MAX_MESSAGE_BYTES = 4096


class Progress(StatusModel):
    """Answer of GET /progress on rank 0."""

    step: int = Field(description="Optimizer steps done.")
    total_steps: int = Field(description="Optimizer steps of the whole run.")
    epoch: float = Field(description="Passes over the training records done.")
    eta_seconds: float | None = Field(default=None, description="Expected seconds to the last step.")
    tokens_per_second: float | None = Field(default=None, description="Over all processes.")
    loss: float | None = Field(default=None, description="Training loss of the last logged step.")
    eval_loss: float | None = Field(default=None, description="Newest loss on the held-out records.")
    learning_rate: float | None = Field(default=None, description="Learning rate of the last step.")
    gpu_memory_percent: float | None = Field(
        default=None, description="Memory allocated on the GPU of rank 0, in percent of what it has; absent on a CPU."
    )
    checkpoint_step: int | None = Field(default=None, description="Step of the newest complete checkpoint.")


class Outcome(StrEnum):
    """How a stage ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class MemoryEstimate(StatusModel):
    """What training will need on each device, by `tunewright_api.estimate`."""

    device_bytes: int
    advice: list[str] = Field(default_factory=list, description="The settings that would save most, with how much.")


class PrepareResult(StatusModel):
    """The dataset, as it will be trained on, counted in rows: records = train + validation + dropped + quarantined."""

    records: int
    train: int
    validation: int
    truncated: int
    divided: int = 0
    pieces: int = 0
    duplicates: int = 0
    dropped: int = 0
    quarantined: int = 0
    notes: list[str] = Field(default_factory=list)
    digest: Digest
    estimate: MemoryEstimate | None = None


class TrainResult(StatusModel):
    """The last step of a finished run."""

    steps: int
    loss: float | None = None
    seconds: float = Field(description="Of all optimizer steps, each counted once, over all attempts.")
    checkpoint_step: int | None = None


class MetricPair(StatusModel):
    """One figure of both models."""

    metric: MetricName
    base: float
    tuned: float


class TaskPair(StatusModel):
    """The first metric of a task of evaluation.harness, of both models."""

    task: str
    metric: str
    base: float
    tuned: float


class EvaluateResult(StatusModel):
    """Both models on the held-out records."""

    records: int
    metrics: list[MetricPair]
    samples: list[Sample] = Field(default_factory=list)
    tasks: list[TaskPair] = Field(default_factory=list)


class ExportResult(StatusModel):
    """The artifact that was written."""

    digest: Digest
    size_bytes: int
    kind: str
    adapter_type: AdapterType | None = None
    sparsity: float | None = None
    chat_template_digest: Digest | None = None


class VerifyResult(StatusModel):
    """The digest that the files really have."""

    digest: Digest
    size_bytes: int


class StageResult(StatusModel):
    """Termination message of every stage. Exactly one of the stage fields is set when it succeeded."""

    outcome: Outcome
    reason: str = Field(default="", description="ExitCode.reason of a failure.")
    message: str = Field(default="", description="What happened and what to do, one sentence for people.")
    rank: int | None = Field(default=None, description="Global rank of the process that failed.")
    prepare: PrepareResult | None = None
    train: TrainResult | None = None
    evaluate: EvaluateResult | None = None
    export: ExportResult | None = None
    verify: VerifyResult | None = None

    def to_message(self) -> str:
        """JSON of at most MAX_MESSAGE_BYTES: notes and sample answers are cut, then left out with the tasks, until it
        fits."""
        for limit in (500, 250, 120, 40, 0):
            payload = self.to_dict()
            payload["message"] = _cut(self.message, 1024 if limit else 256)
            if "prepare" in payload:
                payload["prepare"]["notes"] = [_cut(note, limit) for note in payload["prepare"]["notes"] if limit]
            for sample in payload.get("evaluate", {}).get("samples", []):
                for key in ("prompt", "base", "tuned"):
                    sample[key] = _cut(sample[key], limit)
            if limit == 0 and "evaluate" in payload:
                for details in ("samples", "tasks"):
                    payload["evaluate"].pop(details, None)
            text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
            if len(text.encode()) <= MAX_MESSAGE_BYTES:
                return text
        raise ValueError("a stage result without samples and tasks must fit into a termination message")

    @classmethod
    def from_message(cls, text: str) -> "StageResult | None":
        """Parse a termination message; None when it is not one of ours (a crash, an OOM kill)."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


# --- what a server pod answers ----------------------------------------------------------------


class ServerPerformance(StatusModel):
    """Speed of the pod with a single request, measured once after its first completion."""

    ttft_milliseconds: float = Field(description="Time to the first token.")
    tpot_milliseconds: float = Field(description="Time per further token.")
    tokens_per_second: float = Field(description="Tokens of the answer by the time from the request to the last token.")


class ServerReadiness(StatusModel):
    """Answer of GET /ready on the health port."""

    state: str = Field(description="Verifying, Loading, Ready, Unhealthy, Draining or Failed.")
    message: str = Field(description="The state as a sentence.")
    policy_digest: str | None = Field(default=None, description="Digest of the access rules in force.")
    performance: ServerPerformance | None = Field(default=None, description="Absent until it was measured.")
