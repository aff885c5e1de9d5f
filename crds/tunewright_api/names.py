"""Names shared by operator, trainer, server and chart: one place, so that they can never differ."""

from enum import IntEnum, StrEnum

GROUP = "tunewright.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "tunewright-operator"
FINALIZER = f"{GROUP}/operator"

# Labels on children. The owner labels are what the operator selects its children by.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "tunewright"
LABEL_KIND = f"{GROUP}/kind"
LABEL_NAME = f"{GROUP}/name"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_ATTEMPT = f"{GROUP}/attempt"
# uid of the owner, on pods: they outlive their Job for a while, and then its owner reference leads nowhere.
LABEL_OWNER_UID = f"{GROUP}/owner-uid"
LABEL_REVISION = f"{GROUP}/revision"
# Name of the ModelVersion that a revision serves.
LABEL_VERSION = f"{GROUP}/version"

# Hash of the child's manifest as the operator last applied it: equal hash, no write.
ANNOTATION_SPEC_HASH = f"{GROUP}/spec-hash"

# A person's request to a rollout: VERB@REVISION[/ID], where ID tells two equal requests apart.
ANNOTATION_REQUEST = f"{GROUP}/request"
# "true" on a Secret lets a judge (probes.judge, evaluation.judge) have its key API_KEY.
LABEL_JUDGE = f"{GROUP}/judge"
# A mesh sends requests with this header to the revision that it names.
HEADER_REVISION = "x-tunewright-revision"
# Marks questions of the operator and of the server itself: they are not counted as traffic.
HEADER_PROBE = "x-tunewright-probe"

# Labels of every metric of a server pod, whatever the Prometheus that scrapes it adds.
METRIC_LABEL_NAMESPACE = "namespace"
METRIC_LABEL_SERVICE = "inference_service"
METRIC_LABEL_VERSION = "model_version"
METRIC_LABEL_REVISION = "revision"

APPROVE_VERB = "approve"

# Where claims and configuration appear inside our containers.
CLAIM_MOUNT_ROOT = "/mnt/claims"
# The disk of distributed.deepspeed.nvme in training pods.
NVME_MOUNT = "/mnt/nvme"
CONFIG_DIR = "/etc/tunewright"
CONFIG_FILE = "config.json"

# Host name of rank 0. It follows the attempt, so it is set on the pod and not in the configuration file.
ENV_RENDEZVOUS_ADDRESS = "TUNEWRIGHT_RENDEZVOUS_ADDRESS"

# Key of evaluation.judge, from its Secret.
ENV_JUDGE_KEY = "TUNEWRIGHT_JUDGE_KEY"

PORT_TRAINER = 9090
PORT_RENDEZVOUS = 29500
PORT_SERVER = 8000
PORT_SERVER_HEALTH = 8001
PORT_OPERATOR = 8080


class Stage(StrEnum):
    """A step of a FineTuneJob that runs as a batch Job; `Verify` belongs to ModelVersion."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    VERIFY = "verify"


class ConditionType(StrEnum):
    """Condition types of all three kinds. kstatus reads Ready, Reconciling and Stalled."""

    ACCEPTED = "Accepted"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    READY = "Ready"
    # InferenceService: it answers, but not with what the spec asks for.
    DEGRADED = "Degraded"
    # FineTuneJob
    SUSPENDED = "Suspended"
    DATASET_READY = "DatasetReady"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    EXPORTED = "Exported"
    COMPLETE = "Complete"
    FAILED = "Failed"
    # ModelVersion
    VERIFIED = "Verified"
    APPROVED = "Approved"
    SERVABLE = "Servable"


class ExitCode(IntEnum):
    """Exit codes of the trainer and server images (sysexits.h where a meaning exists there)."""

    OK = 0
    INVALID_CONFIG = 64
    INVALID_DATA = 65
    INPUT_NOT_READABLE = 66
    GPU_UNUSABLE = 69
    INTERNAL = 70
    OUT_OF_MEMORY = 71
    VOLUME_FULL = 73
    OUTPUT_NOT_WRITABLE = 74
    PREEMPTED = 75
    DIVERGED = 76
    DIGEST_MISMATCH = 77
    PEER_LOST = 78

    @property
    def retriable(self) -> bool:
        """Whether the same pod on the same input may succeed the next time."""
        return self in _RETRIABLE

    @property
    def reason(self) -> str:
        """The CamelCase condition reason of this exit code, e.g. `InvalidData`."""
        return "".join(part.capitalize() for part in self.name.split("_"))


_RETRIABLE = frozenset({ExitCode.GPU_UNUSABLE, ExitCode.INTERNAL, ExitCode.PREEMPTED, ExitCode.PEER_LOST})
