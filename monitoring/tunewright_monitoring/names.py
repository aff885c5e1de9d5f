"""Metrics that rules and dashboards ask for. Tests hold these names against the code that exports them."""

from tunewright_api.names import (
    METRIC_LABEL_NAMESPACE,
    METRIC_LABEL_REVISION,
    METRIC_LABEL_SERVICE,
    METRIC_LABEL_VERSION,
)

# Labels of an InferenceService, and of what it serves.
SERVICE = f"{METRIC_LABEL_NAMESPACE}, {METRIC_LABEL_SERVICE}"
VERSION = f"{SERVICE}, {METRIC_LABEL_VERSION}"
REVISION = f"{VERSION}, {METRIC_LABEL_REVISION}"
# Labels of a FineTuneJob.
JOB = "namespace, name"

# vLLM, relayed by the server pod with the labels of REVISION.
FIRST_TOKEN_SECONDS = "vllm:time_to_first_token_seconds"
OUTPUT_TOKEN_SECONDS = "vllm:request_time_per_output_token_seconds"
LATENCY_SECONDS = "vllm:e2e_request_latency_seconds"
FINISHED = "vllm:request_success_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_CACHE = "vllm:kv_cache_usage_perc"  # 0 to 1, in spite of its name

# The server pod: the middleware in front of vLLM, and its supervisor.
REQUESTS = "tunewright_requests_total"
IN_FLIGHT = "tunewright_requests_in_flight"
SERVER_READY = "tunewright_server_ready"
SERVER_GPUS = "tunewright_server_gpus"

# The operator.
OPERATOR_UP = "tunewright_operator_up"
OBJECTS = "tunewright_objects"
RECONCILE_ERRORS = "tunewright_reconcile_errors_total"
READY = "tunewright_inference_service_ready"
ROLLOUT_WEIGHT = "tunewright_rollout_weight"
ROLLOUT_STARTED = "tunewright_rollout_started_timestamp_seconds"
ROLLOUT_REJECTED = "tunewright_rollout_rejected"
ROLLOUT_DECISIONS = "tunewright_rollout_decisions_total"
JOB_FAILED = "tunewright_finetunejob_failed_timestamp_seconds"
STAGE_SECONDS = "tunewright_stage_seconds"
RESTARTS = "tunewright_training_restarts_total"

# Rank 0 of a training run.
TRAIN_INFO = "tunewright_train_info"
TRAIN_LOSS = "tunewright_train_loss"
TRAIN_LEARNING_RATE = "tunewright_train_learning_rate"
TRAIN_GRADIENT_NORM = "tunewright_train_grad_norm"
TRAIN_TOKENS_PER_SECOND = "tunewright_train_tokens_per_second"
TRAIN_TOKENS = "tunewright_train_tokens_total"
TRAIN_STEP = "tunewright_train_step"
TRAIN_TOTAL_STEPS = "tunewright_train_total_steps"
TRAIN_EPOCH = "tunewright_train_epoch"
TRAIN_ETA = "tunewright_train_eta_seconds"
TRAIN_CHECKPOINT = "tunewright_train_checkpoint_step"
TRAIN_STEP_SECONDS = "tunewright_train_step_seconds"
TRAIN_DATA_WAIT = "tunewright_train_data_wait_share"
TRAIN_CHECKPOINT_STALL = "tunewright_train_checkpoint_stall_seconds_total"
TRAIN_MEMORY = "tunewright_train_memory_bytes"
TRAIN_PEAK_MEMORY = "tunewright_train_peak_memory_bytes"
TRAIN_MFU = "tunewright_train_mfu"

# Exporters that are not ours: NVIDIA's DCGM exporter, and kube-state-metrics.
GPU_MEMORY_USED = "DCGM_FI_DEV_FB_USED"
GPU_MEMORY_FREE = "DCGM_FI_DEV_FB_FREE"
GPU_UTILIZED = "DCGM_FI_DEV_GPU_UTIL"
POD_RESTARTS = "kube_pod_container_status_restarts_total"


def of_job(expr: str, selector: str = "") -> str:
    """Samples of rank 0 with the namespace and name of the job, which it tells in a metric of its own."""
    return f"{expr} * on (job, instance) group_left ({JOB}) {TRAIN_INFO}{selector}"
