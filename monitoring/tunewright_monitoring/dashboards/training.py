"""How training runs go."""

from tunewright_monitoring.dashboards.choice import IN_NAMESPACE, JOB_VARIABLES, OF_JOB
from tunewright_monitoring.names import (
    JOB,
    OBJECTS,
    RESTARTS,
    SERVER_READY,
    STAGE_SECONDS,
    TRAIN_CHECKPOINT,
    TRAIN_CHECKPOINT_STALL,
    TRAIN_DATA_WAIT,
    TRAIN_EPOCH,
    TRAIN_ETA,
    TRAIN_GRADIENT_NORM,
    TRAIN_LEARNING_RATE,
    TRAIN_LOSS,
    TRAIN_MEMORY,
    TRAIN_MFU,
    TRAIN_PEAK_MEMORY,
    TRAIN_STEP,
    TRAIN_STEP_SECONDS,
    TRAIN_TOKENS,
    TRAIN_TOKENS_PER_SECOND,
    TRAIN_TOTAL_STEPS,
    of_job,
)
from tunewright_monitoring.panels import RATE_INTERVAL, Dashboard, Kind, Panel, Query, Row, Unit
from tunewright_monitoring.recording import GPU_MEMORY, GPU_UTILIZATION

_NAME = "{{name}}"
_GPU = "{{pod}} GPU {{gpu}}"


def _value(metric: str, legend: str = _NAME) -> Query:
    return Query(f"max by ({JOB}) ({of_job(metric, OF_JOB)})", legend)


def _step_seconds(percent: int) -> Query:
    buckets = of_job(f"rate({TRAIN_STEP_SECONDS}_bucket[{RATE_INTERVAL}])", OF_JOB)
    return Query(
        f"histogram_quantile({percent / 100:g}, sum by ({JOB}, le) ({buckets}))",
        f"{_NAME} p{percent}",
    )


TRAINING = Dashboard(
    uid="tunewright-training",
    title="Tunewright / Training",
    description="How the training runs of FineTuneJobs go. Rank 0 tells, while it runs.",
    variables=JOB_VARIABLES,
    rows=(
        Row(
            "Progress",
            (
                Panel(
                    "Steps",
                    "Optimizer steps done.",
                    (_value(TRAIN_STEP), _value(TRAIN_TOTAL_STEPS, f"{_NAME} of")),
                    kind=Kind.LAST,
                    width=6,
                    height=5,
                ),
                Panel("Left", "Expected time to the last step.", (_value(TRAIN_ETA),), Unit.SECONDS, Kind.LAST, 6, 5),
                Panel("Epoch", "Passes over the records.", (_value(TRAIN_EPOCH),), kind=Kind.LAST, width=6, height=5),
                Panel(
                    "Newest checkpoint",
                    "Its step: what the run goes on from after a failure.",
                    (_value(TRAIN_CHECKPOINT),),
                    kind=Kind.LAST,
                    width=6,
                    height=5,
                ),
            ),
        ),
        Row(
            "Learning",
            (
                Panel("Loss", "Of the last optimizer step, mean over assistant tokens.", (_value(TRAIN_LOSS),)),
                Panel("Gradient norm", "Before clipping.", (_value(TRAIN_GRADIENT_NORM),)),
                Panel("Learning rate", "Of the last optimizer step.", (_value(TRAIN_LEARNING_RATE),), Unit.SCIENTIFIC),
            ),
        ),
        Row(
            "Speed",
            (
                Panel(
                    "Tokens per second",
                    "Over all processes: as the trainer reports it, and as its counter grows.",
                    (
                        _value(TRAIN_TOKENS_PER_SECOND, f"{_NAME} reported"),
                        _value(f"rate({TRAIN_TOKENS}[{RATE_INTERVAL}])", f"{_NAME} counted"),
                    ),
                ),
                Panel(
                    "Seconds per step",
                    "A few slow steps are checkpoints; all slow ones are the network or the disk.",
                    (_step_seconds(50), _step_seconds(95)),
                    Unit.SECONDS,
                ),
                Panel("Steps done", "A flat line is a run that is stuck.", (_value(TRAIN_STEP),)),
                *(
                    Panel(
                        title,
                        description,
                        (Query(f"{record}{IN_NAMESPACE} unless on (namespace, pod) {SERVER_READY}", _GPU),),
                        Unit.PERCENT,
                        gpu=True,
                    )
                    for title, description, record in (
                        ("GPU memory", "Of all pods but those that serve.", GPU_MEMORY),
                        ("GPU utilization", "Share of the time that the GPU computes.", GPU_UTILIZATION),
                    )
                ),
                Panel(
                    "Model FLOPs utilization",
                    "Share of the GPUs' peak that the model's own arithmetic uses; 30 to 50 % is good.",
                    (_value(TRAIN_MFU),),
                    Unit.FRACTION,
                    gpu=True,
                ),
            ),
        ),
        Row(
            "Time and memory that training takes besides",
            (
                Panel(
                    "Waiting for data",
                    "Share of the last step in which rank 0 had nothing to compute.",
                    (_value(TRAIN_DATA_WAIT),),
                    Unit.FRACTION,
                ),
                Panel(
                    "Waiting for checkpoints",
                    "Share of the time in which a checkpoint kept rank 0 from training.",
                    (_value(f"rate({TRAIN_CHECKPOINT_STALL}[{RATE_INTERVAL}])"),),
                    Unit.FRACTION,
                ),
                Panel(
                    "Memory of rank 0",
                    "Allocated on its GPU, or resident on a CPU: now, and the most so far.",
                    (_value(TRAIN_MEMORY), _value(TRAIN_PEAK_MEMORY, f"{_NAME} peak")),
                    Unit.BYTES,
                ),
            ),
        ),
        Row(
            "All jobs of the cluster",
            (
                Panel(
                    "Jobs by stage",
                    "FineTuneJobs that are there now.",
                    (Query(f'sum by (state) ({OBJECTS}{{kind="FineTuneJob"}})', "{{state}}"),),
                ),
                Panel(
                    "Time per stage",
                    "Mean of the stages that ended, since the operator began.",
                    (
                        Query(
                            f"sum by (stage) ({STAGE_SECONDS}_sum) / sum by (stage) ({STAGE_SECONDS}_count)",
                            "{{stage}}",
                        ),
                    ),
                    Unit.SECONDS,
                ),
                Panel(
                    "Lost attempts",
                    "Attempts that were lost in the last hour, by cause.",
                    (
                        Query(
                            f"sum by (cause) (increase({RESTARTS}[1h])) "
                            'or label_replace(vector(0), "cause", "none", "", "")',
                            "{{cause}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
