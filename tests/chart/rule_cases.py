"""What each rule makes of a few series, in the words of promtool: `0+6x20` is a counter that grows by 6 a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]
Labels = Mapping[str, str]

WHO = {"namespace": "team", "inference_service": "guide"}
VERSION = {**WHO, "model_version": "guide-v2"}
ALWAYS = "x120"  # two hours


@dataclass(frozen=True)
class Record:
    """What a recording rule has stored at a time, by labels."""

    id: str
    record: str
    series: Series
    want: list[tuple[Labels, float]]
    at: str = "10m"


@dataclass(frozen=True)
class Fires:
    """An alert, and the (labels, summary) of those that fire at a time: none, if `want` is empty."""

    id: str
    alert: str
    series: Series
    want: list[tuple[Labels, str]] = field(default_factory=list)
    at: str = "10m"


def sample(metric: str, **labels: str) -> str:
    """NAME{LABELS}."""
    return f"{metric}{{{', '.join(f'{name}={chr(34)}{value}{chr(34)}' for name, value in labels.items())}}}"


def of_pod(metric: str, pod: str = "a", **labels: str) -> str:
    """A sample of a pod of the service, as it is scraped."""
    scraped = {"pod": f"guide-bbbb2222-5d6f7-xxxx{pod}", "instance": f"10.0.0.{ord(pod)}:8001"}
    return sample(metric, **{**VERSION, "revision": "bbbb2222", **scraped, **labels})


def histogram(metric: str, counts: Mapping[str, int], **labels: str) -> Series:
    """A histogram whose buckets grow by these counts a minute."""
    return {of_pod(f"{metric}_bucket", le=le, **labels): f"0+{count}{ALWAYS}" for le, count in counts.items()}


def requests(**per_minute: int) -> Series:
    """Requests of clients by outcome."""
    return {
        of_pod("tunewright_requests_total", source="client", outcome=outcome): f"0+{count}{ALWAYS}"
        for outcome, count in per_minute.items()
    }


def finished(**per_minute: int) -> Series:
    """Generations by how they ended."""
    return {
        of_pod("vllm:request_success_total", finished_reason=reason): f"0+{count}{ALWAYS}"
        for reason, count in per_minute.items()
    }


def of_operator(metric: str, **labels: str) -> str:
    """A sample of the operator about the service."""
    return sample(metric, **WHO, instance="10.0.1.1:8080", **labels)


FIRST_TOKEN = "vllm:time_to_first_token_seconds"
OUTPUT_TOKEN = "vllm:request_time_per_output_token_seconds"
TOKENS = "vllm:generation_tokens_total"
GPU = {"Hostname": "node-1", "gpu": "3"}

RECORDS = (
    *(
        Record(
            f"the first token's p{percent} lies within its bucket",
            f"tunewright:time_to_first_token_seconds:p{percent}",
            histogram(FIRST_TOKEN, {"0.1": 50, "0.2": 90, "0.4": 100, "+Inf": 100}),
            [(VERSION, want)],
        )
        for percent, want in ((50, 0.1), (95, 0.3), (99, 0.38))
    ),
    *(
        Record(
            f"the p{percent} of the time per output token counts all pods together",
            f"tunewright:time_per_output_token_seconds:p{percent}",
            {
                **histogram(OUTPUT_TOKEN, {"0.01": 100, "0.02": 100, "+Inf": 100}, pod="a"),
                **histogram(OUTPUT_TOKEN, {"0.01": 0, "0.02": 100, "+Inf": 100}, pod="b"),
            },
            [(VERSION, want)],
        )
        for percent, want in ((50, 0.01), (95, 0.019))
    ),
    Record(
        "tokens per GPU are those of all pods by all GPUs",
        "tunewright:tokens_per_second_per_gpu",
        {
            of_pod(TOKENS, "a"): f"0+60000{ALWAYS}",
            of_pod(TOKENS, "b"): f"0+30000{ALWAYS}",
            of_pod("tunewright_server_gpus", "a"): f"2{ALWAYS}",
            of_pod("tunewright_server_gpus", "b"): f"1{ALWAYS}",
        },
        [(VERSION, 500)],
    ),
    Record(
        "a pod without a GPU counts as one",
        "tunewright:tokens_per_second_per_gpu",
        {
            of_pod(TOKENS, "a"): f"0+600{ALWAYS}",
            of_pod(TOKENS, "b"): f"0+600{ALWAYS}",
            of_pod("tunewright_server_gpus", "a"): f"0{ALWAYS}",
            of_pod("tunewright_server_gpus", "b"): f"0{ALWAYS}",
        },
        [(VERSION, 10)],
    ),
    Record(
        "errors are those of the server, not of clients and not of probes",
        "tunewright:error_rate:percent",
        {
            **requests(Completed=94, ServerError=3, Broken=2, ClientClosed=1, ClientError=100),
            of_pod("tunewright_requests_total", source="probe", outcome="ServerError"): f"0+50{ALWAYS}",
        },
        [(VERSION, 5)],
    ),
    Record(
        "without requests there is no error rate",
        "tunewright:error_rate:percent",
        requests(Completed=0, ServerError=0, ClientError=5),
        [],
    ),
    Record(
        "an answer that ends by itself or at its limit is complete",
        "tunewright:completion_rate:percent",
        finished(stop=80, length=10, abort=6, error=4),
        [(VERSION, 90)],
    ),
    Record(
        "without generations there is no completion rate",
        "tunewright:completion_rate:percent",
        finished(stop=0, abort=0),
        [],
    ),
    Record(
        "requests are counted by version",
        "tunewright:requests_per_second",
        {
            **requests(Completed=60, ServerError=30, ClientError=600),
            sample(
                "tunewright_requests_total",
                **{**VERSION, "model_version": "guide-v1"},
                **{"revision": "aaaa1111", "source": "client", "outcome": "Completed"},
            ): f"0+180{ALWAYS}",
        },
        [(VERSION, 1.5), ({**VERSION, "model_version": "guide-v1"}, 3)],
    ),
    *(
        Record(
            f"GPU memory belongs to the pod that holds it, scraped {how}",
            "tunewright:gpu_memory_used:percent",
            {
                sample("DCGM_FI_DEV_FB_USED", **GPU, **labels): f"60000{ALWAYS}",
                sample("DCGM_FI_DEV_FB_FREE", **GPU, **labels): f"20000{ALWAYS}",
            },
            [({**GPU, "namespace": "team", "pod": "job-0"}, 75)],
        )
        for how, labels in (
            ("with honorLabels", {"namespace": "team", "pod": "job-0"}),
            (
                "without",
                {"namespace": "gpu", "pod": "dcgm", "exported_namespace": "team", "exported_pod": "job-0"},
            ),
        )
    ),
    Record(
        "GPU utilization belongs to the pod that holds it",
        "tunewright:gpu_utilization:percent",
        {sample("DCGM_FI_DEV_GPU_UTIL", **GPU, namespace="team", pod="job-0"): f"97{ALWAYS}"},
        [({**GPU, "namespace": "team", "pod": "job-0"}, 97)],
    ),
)


def _slow(bucket: str) -> Series:
    """First tokens that all fall between a bucket's edge and the next."""
    edges = ("0.25", "0.5", "0.75", "+Inf")
    return histogram(FIRST_TOKEN, {le: 100 * (edges.index(le) >= edges.index(bucket)) for le in edges})


def _throughput(tokens: int, *, gpus: int = 1, running: int = 4, waiting: int = 0) -> Series:
    return {
        of_pod(TOKENS): f"0+{60 * tokens}{ALWAYS}",
        of_pod("tunewright_server_gpus"): f"{gpus}{ALWAYS}",
        of_pod("vllm:num_requests_running"): f"{running}{ALWAYS}",
        of_pod("vllm:num_requests_waiting"): f"{waiting}{ALWAYS}",
    }


def _gpu_memory(used: int, pod: str = "job-train-0-0-abcde") -> Series:
    holder = {**GPU, "namespace": "team", "pod": pod}
    return {
        sample("DCGM_FI_DEV_FB_USED", **holder): f"{used}{ALWAYS}",
        sample("DCGM_FI_DEV_FB_FREE", **holder): f"{100 - used}{ALWAYS}",
    }


def _gpu_says(percent: int, limit: int) -> tuple[Labels, str]:
    labels = {**GPU, "namespace": "team", "pod": "job-train-0-0-abcde"}
    says = f"GPU 3 of node-1 (pod team/job-train-0-0-abcde): {percent} percent of its memory is used; "
    return labels, f"{says}the limit is {limit}."


def _restarts(pod: str, per_minute: str) -> Series:
    labels = {"namespace": "team", "pod": pod, "container": "server", "instance": "10.0.2.1:8080"}
    return {
        sample("kube_pod_container_status_restarts_total", **labels): per_minute,
        of_operator("tunewright_inference_service_ready"): f"1{ALWAYS}",
    }


def _rollout(weights: str) -> Series:
    """A rollout that began when the clock did."""
    return {
        of_operator("tunewright_rollout_started_timestamp_seconds"): f"0{ALWAYS}",
        of_operator("tunewright_rollout_weight", model_version="guide-v2", revision="bbbb2222"): weights,
    }


def _training(steps: str, total: int = 90) -> Series:
    """Rank 0, whose samples do not name the job but for one."""
    target = {"job": "team/training", "instance": "10.0.3.1:9090"}
    return {
        sample("tunewright_train_step", **target): steps,
        sample("tunewright_train_total_steps", **target): f"{total}{ALWAYS}",
        sample("tunewright_train_info", namespace="team", name="guide", uid="1", **target): f"1{ALWAYS}",
    }


_JOB = {"namespace": "team", "name": "guide"}
_FAILED = sample("tunewright_finetunejob_failed_timestamp_seconds", **_JOB, reason="OutOfMemory", instance="10.0.1.1")

ALERTS = (
    Fires(
        "first token after 750 ms",
        "TunewrightFirstTokenSlow",
        _slow("0.75"),
        [
            (
                VERSION,
                "team/guide (guide-v2): a twentieth of the requests wait more than 737.5 ms for their first token; "
                "the limit is 500 ms.",
            )
        ],
    ),
    Fires("first token before 500 ms", "TunewrightFirstTokenSlow", _slow("0.5")),
    Fires("no requests, so no first token", "TunewrightFirstTokenSlow", histogram(FIRST_TOKEN, {"0.5": 0, "+Inf": 0})),
    Fires("first token slow, but not for long", "TunewrightFirstTokenSlow", _slow("0.75"), at="4m"),
    Fires(
        "one error in two hundred requests",
        "TunewrightErrorRateHigh",
        requests(Completed=199, ServerError=1),
        [(VERSION, "team/guide (guide-v2): 0.5 percent of the requests fail or break off; the limit is 0.1.")],
    ),
    Fires("one error in two thousand", "TunewrightErrorRateHigh", requests(Completed=1999, Broken=1)),
    Fires("clients that are wrong", "TunewrightErrorRateHigh", requests(Completed=10, ServerError=0, ClientError=90)),
    Fires(
        "every tenth answer is aborted",
        "TunewrightCompletionRateLow",
        finished(stop=80, length=10, abort=10),
        [(VERSION, "team/guide (guide-v2): only 90 percent of the answers are complete; the limit is 95.")],
    ),
    Fires("every hundredth is aborted", "TunewrightCompletionRateLow", finished(stop=99, abort=1)),
    Fires("nothing is asked", "TunewrightCompletionRateLow", finished(stop=0, abort=0)),
    Fires(
        "few tokens while requests wait",
        "TunewrightThroughputLow",
        _throughput(100, running=0, waiting=3),
        [
            (
                VERSION,
                "team/guide (guide-v2): 100 tokens per second and GPU while requests are there; the limit is 500.",
            )
        ],
        at="15m",
    ),
    Fires("many tokens", "TunewrightThroughputLow", _throughput(600), at="15m"),
    Fires("few tokens because nobody asks", "TunewrightThroughputLow", _throughput(0, running=0), at="15m"),
    Fires("few tokens on a CPU", "TunewrightThroughputLow", _throughput(100, gpus=0), at="15m"),
    Fires(
        "the fullest pod's cache is full",
        "TunewrightKVCacheFull",
        {
            of_pod("vllm:kv_cache_usage_perc", "a"): f"0.98{ALWAYS}",
            of_pod("vllm:kv_cache_usage_perc", "b"): f"0.1{ALWAYS}",
        },
        [(VERSION, "team/guide (guide-v2): 98 percent of the KV cache of a pod is used; the limit is 95.")],
    ),
    Fires("a cache in use", "TunewrightKVCacheFull", {of_pod("vllm:kv_cache_usage_perc"): f"0.9{ALWAYS}"}),
    Fires(
        "a service that is down",
        "TunewrightServiceNotReady",
        {of_operator("tunewright_inference_service_ready"): f"0{ALWAYS}"},
        [(WHO, "team/guide has not answered for 15 minutes.")],
        at="15m",
    ),
    Fires(
        "a service that is loading",
        "TunewrightServiceNotReady",
        {of_operator("tunewright_inference_service_ready"): f"0x13 1{ALWAYS}"},
        at="20m",
    ),
    Fires(
        "ready, and no pod is scraped",
        "TunewrightServerNotScraped",
        {of_operator("tunewright_inference_service_ready"): f"1{ALWAYS}"},
        [
            (
                WHO,
                "team/guide answers, but Prometheus sees none of its pods: no alert covers it, and no rollout is "
                "judged.",
            )
        ],
    ),
    Fires(
        "ready and scraped",
        "TunewrightServerNotScraped",
        {
            of_operator("tunewright_inference_service_ready"): f"1{ALWAYS}",
            of_pod("tunewright_server_ready"): f"1{ALWAYS}",
        },
    ),
    Fires(
        "a server that restarts every three minutes",
        "TunewrightServerCrashLooping",
        _restarts("guide-bbbb2222-5d6f7c8d9-abcde", "0 0 0 1 1 1 2 2 2 3 3 3 4 4 4 5 5 5"),
        [
            (
                {**WHO, "pod": "guide-bbbb2222-5d6f7c8d9-abcde"},
                "team/guide: the server in pod guide-bbbb2222-5d6f7c8d9-abcde restarted 4 times in 15 minutes.",
            )
        ],
        at="17m",
    ),
    Fires(
        "a server that restarted once",
        "TunewrightServerCrashLooping",
        _restarts("guide-bbbb2222-5d6f7c8d9-abcde", f"0 0 0 1{ALWAYS}"),
        at="10m",
    ),
    Fires(
        "a crash loop of somebody else's container of that name",
        "TunewrightServerCrashLooping",
        _restarts("argocd-5d6f7c8d9-abcde", f"0+1{ALWAYS}"),
        at="17m",
    ),
    Fires("training uses 85 percent", "TunewrightGPUMemoryHigh", _gpu_memory(85), [_gpu_says(85, 80)]),
    Fires("training uses 75 percent", "TunewrightGPUMemoryHigh", _gpu_memory(75)),
    Fires("85 percent is not critical", "TunewrightGPUMemoryFull", _gpu_memory(85)),
    Fires("training uses 95 percent", "TunewrightGPUMemoryFull", _gpu_memory(95), [_gpu_says(95, 90)]),
    Fires(
        "a server holds what vLLM took at its start",
        "TunewrightGPUMemoryFull",
        {**_gpu_memory(95, "guide-bbbb2222-5d6f7-xxxxa"), of_pod("tunewright_server_ready"): f"1{ALWAYS}"},
    ),
    Fires(
        "a weight that has not changed for an hour",
        "TunewrightRolloutStuck",
        _rollout(f"0 10 20 30{ALWAYS}"),
        [(WHO, "team/guide: the rollout began 1h 10m 0s ago and has not moved for 60 minutes.")],
        at="70m",
    ),
    Fires("a rollout that moves", "TunewrightRolloutStuck", _rollout("0x30 10x30 20x60"), at="70m"),
    Fires("a rollout that is young", "TunewrightRolloutStuck", _rollout(f"0{ALWAYS}"), at="50m"),
    Fires(
        "the candidate is gone",
        "TunewrightRolloutStuck",
        {of_operator("tunewright_inference_service_ready"): f"1{ALWAYS}"},
        at="70m",
    ),
    Fires(
        "a version is remembered as bad",
        "TunewrightRolledBack",
        {of_operator("tunewright_rollout_rejected", model_version="guide-v2", reason="TTFTP95"): f"1{ALWAYS}"},
        [({**VERSION, "reason": "TTFTP95"}, "team/guide (guide-v2) was rolled back: TTFTP95.")],
    ),
    Fires(
        "the spec asks for another version since",
        "TunewrightRolledBack",
        {of_operator("tunewright_rollout_rejected", model_version="guide-v2", reason="TTFTP95"): "1x5 stale"},
    ),
    Fires(
        "no step for half an hour",
        "TunewrightTrainingStalled",
        _training(f"0+1x20 20{ALWAYS}"),
        [(_JOB, "team/guide: the training runs, but no step was done for 30 minutes.")],
        at="60m",
    ),
    Fires("a slow training", "TunewrightTrainingStalled", _training("0x9 1x9 2x9 3x9 4x9 5x9 6x9"), at="60m"),
    Fires("a training that is done", "TunewrightTrainingStalled", _training(f"90{ALWAYS}"), at="60m"),
    Fires(
        "a job that failed an hour ago",
        "TunewrightTrainingFailed",
        {_FAILED: f"0{ALWAYS}"},
        [({**_JOB, "reason": "OutOfMemory"}, "team/guide failed: OutOfMemory. Reported for a day.")],
        at="60m",
    ),
    Fires("a job that failed two days ago", "TunewrightTrainingFailed", {_FAILED: "-172800x120"}, at="60m"),
    Fires(
        "nothing of the operator is there",
        "TunewrightOperatorDown",
        {"up": f"1{ALWAYS}"},
        [({}, "The operator of Tunewright is gone, or Prometheus does not scrape it.")],
    ),
    Fires("the operator restarts", "TunewrightOperatorDown", {"tunewright_operator_up": "1x5 stale _x2 1x20"}),
    Fires(
        "one kind fails every minute",
        "TunewrightReconcileErrors",
        {sample("tunewright_reconcile_errors_total", kind="InferenceService", error="Forbidden"): f"0+1{ALWAYS}"},
        [
            (
                {"kind": "InferenceService", "error": "Forbidden"},
                "The operator failed 15 times in 15 minutes at objects of kind InferenceService: Forbidden.",
            )
        ],
        at="20m",
    ),
    Fires(
        "a conflict now and then",
        "TunewrightReconcileErrors",
        {sample("tunewright_reconcile_errors_total", kind="InferenceService", error="Conflict"): "0x9 1x9 2x9 3x9"},
        at="20m",
    ),
)
