"""Alerts. Each has a page in docs/runbooks; thresholds are chart values.

Metrics of the operator are aggregated over its pods, so that its restart does not end an alert.
"""

from tunewright_monitoring.names import (
    JOB,
    JOB_FAILED,
    KV_CACHE,
    OPERATOR_UP,
    POD_RESTARTS,
    READY,
    RECONCILE_ERRORS,
    ROLLOUT_REJECTED,
    ROLLOUT_STARTED,
    ROLLOUT_WEIGHT,
    RUNNING,
    SERVER_GPUS,
    SERVER_READY,
    SERVICE,
    TRAIN_STEP,
    TRAIN_TOTAL_STEPS,
    VERSION,
    WAITING,
    of_job,
)
from tunewright_monitoring.recording import COMPLETION_RATE, ERROR_RATE, FIRST_TOKEN, GPU_MEMORY, TOKENS_PER_GPU
from tunewright_monitoring.rules import Alert, Severity

_WHO = "{{ $labels.namespace }}/{{ $labels.inference_service }}"
_VERSION = f"{_WHO} ({{{{ $labels.model_version }}}})"
_JOB = "{{ $labels.namespace }}/{{ $labels.name }}"
_VALUE = "{{ $value | printf `%.4g` }}"
_COUNT = "{{ $value | printf `%.0f` }}"

_DCGM = "NVIDIA's DCGM exporter"
_STATE_METRICS = "kube-state-metrics"

# A server pod is named SERVICE-REVISION-REPLICASET-POD; its container is called server, which others' are, too.
_OF_SERVICE = '"inference_service", "$1", "pod", "(.+)-[0-9a-f]{8}-[0-9a-z]+-[0-9a-z]{5}"'

SERVING = (
    Alert(
        name="TunewrightFirstTokenSlow",
        severity=Severity.WARNING,
        expr=f"1000 * {FIRST_TOKEN}:p95 > ${{firstTokenMilliseconds}}",
        hold="5m",
        summary=f"{_VERSION}: a twentieth of the requests wait more than {_VALUE} ms for their first token; the limit "
        "is ${firstTokenMilliseconds} ms.",
    ),
    Alert(
        name="TunewrightErrorRateHigh",
        severity=Severity.CRITICAL,
        expr=f"{ERROR_RATE} > ${{errorRatePercent}}",
        hold="5m",
        summary=f"{_VERSION}: {_VALUE} percent of the requests fail or break off; the limit is ${{errorRatePercent}}.",
    ),
    Alert(
        name="TunewrightCompletionRateLow",
        severity=Severity.WARNING,
        expr=f"{COMPLETION_RATE} < ${{completionRatePercent}}",
        hold="5m",
        summary=f"{_VERSION}: only {_VALUE} percent of the answers are complete; the limit is "
        "${completionRatePercent}.",
    ),
    Alert(
        name="TunewrightThroughputLow",
        severity=Severity.WARNING,
        expr=f"{TOKENS_PER_GPU} < ${{tokensPerSecondPerGPU}} "
        f"and on ({VERSION}) sum by ({VERSION}) ({RUNNING} + {WAITING}) > 0 "
        f"and on ({VERSION}) sum by ({VERSION}) ({SERVER_GPUS}) > 0",
        hold="10m",
        summary=f"{_VERSION}: {_VALUE} tokens per second and GPU while requests are there; the limit is "
        "${tokensPerSecondPerGPU}.",
    ),
    Alert(
        name="TunewrightKVCacheFull",
        severity=Severity.WARNING,
        expr=f"100 * max by ({VERSION}) ({KV_CACHE}) > ${{kvCachePercent}}",
        hold="10m",
        summary=f"{_VERSION}: {_VALUE} percent of the KV cache of a pod is used; the limit is ${{kvCachePercent}}.",
    ),
    Alert(
        name="TunewrightServiceNotReady",
        severity=Severity.CRITICAL,
        expr=f"max by ({SERVICE}) ({READY}) == 0",
        hold="${notReadyMinutes}m",
        summary=f"{_WHO} has not answered for ${{notReadyMinutes}} minutes.",
    ),
    Alert(
        name="TunewrightServerNotScraped",
        severity=Severity.WARNING,
        expr=f"max by ({SERVICE}) ({READY}) == 1 unless on ({SERVICE}) {SERVER_READY}",
        hold="10m",
        summary=f"{_WHO} answers, but Prometheus sees none of its pods: no alert covers it, and no rollout is judged.",
    ),
    Alert(
        name="TunewrightServerCrashLooping",
        severity=Severity.CRITICAL,
        expr=f'label_replace(sum by (namespace, pod) (increase({POD_RESTARTS}{{container="server"}}[15m])), '
        f"{_OF_SERVICE}) > 2 and on ({SERVICE}) {READY}",
        hold="",
        summary=f"{_WHO}: the server in pod {{{{ $labels.pod }}}} restarted {_COUNT} times in 15 minutes.",
        needs=_STATE_METRICS,
    ),
)

GPU = (
    # vLLM takes its share of the memory when it starts, and holds it: on its GPUs TunewrightKVCacheFull tells.
    *(
        Alert(
            name=name,
            severity=severity,
            expr=f"{GPU_MEMORY} > ${{{threshold}}} unless on (namespace, pod) {SERVER_READY}",
            hold="5m",
            summary=f"GPU {{{{ $labels.gpu }}}} of {{{{ $labels.Hostname }}}} (pod {{{{ $labels.namespace }}}}/"
            f"{{{{ $labels.pod }}}}): {_VALUE} percent of its memory is used; the limit is ${{{threshold}}}.",
            needs=_DCGM,
        )
        for name, severity, threshold in (
            ("TunewrightGPUMemoryHigh", Severity.WARNING, "gpuMemoryWarningPercent"),
            ("TunewrightGPUMemoryFull", Severity.CRITICAL, "gpuMemoryCriticalPercent"),
        )
    ),
)

ROLLOUT = (
    Alert(
        name="TunewrightRolloutStuck",
        severity=Severity.WARNING,
        expr=f"time() - max by ({SERVICE}) ({ROLLOUT_STARTED}) > 60 * ${{rolloutStuckMinutes}} "
        f"and on ({SERVICE}) max by ({SERVICE}) (changes({ROLLOUT_WEIGHT}[${{rolloutStuckMinutes}}m])) == 0",
        hold="1m",
        summary=f"{_WHO}: the rollout began {{{{ $value | humanizeDuration }}}} ago and has not moved for "
        "${rolloutStuckMinutes} minutes.",
    ),
    Alert(
        name="TunewrightRolledBack",
        severity=Severity.WARNING,
        expr=f"max by ({VERSION}, reason) ({ROLLOUT_REJECTED}) == 1",
        hold="",
        summary=f"{_VERSION} was rolled back: {{{{ $labels.reason }}}}.",
    ),
)

TRAINING = (
    Alert(
        name="TunewrightTrainingStalled",
        severity=Severity.WARNING,
        expr=f"max by ({JOB}) ("
        + of_job(f"(changes({TRAIN_STEP}[5m]) == 0 and {TRAIN_STEP} < {TRAIN_TOTAL_STEPS})")
        + ")",
        hold="${trainingStalledMinutes}m",
        summary=f"{_JOB}: the training runs, but no step was done for ${{trainingStalledMinutes}} minutes.",
    ),
    Alert(
        name="TunewrightTrainingFailed",
        severity=Severity.WARNING,
        expr=f"time() - max by ({JOB}, reason) ({JOB_FAILED}) < 86400",
        hold="",
        summary=f"{_JOB} failed: {{{{ $labels.reason }}}}. Reported for a day.",
    ),
)

OPERATOR = (
    Alert(
        name="TunewrightOperatorDown",
        severity=Severity.CRITICAL,
        expr=f"absent({OPERATOR_UP})",
        hold="5m",
        summary="The operator of Tunewright is gone, or Prometheus does not scrape it.",
    ),
    Alert(
        name="TunewrightReconcileErrors",
        severity=Severity.WARNING,
        expr=f"sum by (kind, error) (increase({RECONCILE_ERRORS}[15m])) > 10",
        hold="",
        summary=f"The operator failed {_COUNT} times in 15 minutes at objects of kind {{{{ $labels.kind }}}}: "
        "{{ $labels.error }}.",
    ),
)

ALERTS = (*SERVING, *GPU, *ROLLOUT, *TRAINING, *OPERATOR)
