"""May this ModelVersion be served? Ordered checks, first hit wins.

Only what is approved and verified is served, and it is served only as long as that holds: taking back an approval is
the way to take a model off the air at once, so a refusal that `withdraws` also stops a revision that already runs.
Deleting the record withdraws too, because nobody can then say what runs or who approved it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewright_api.conditions import ConditionStatus
from tunewright_api.inferenceservice import InferenceServiceSpec, ServedModel
from tunewright_api.method import AdapterType
from tunewright_api.modelversion import Decision, ModelKind, ModelVersionSpec, ModelVersionStatus
from tunewright_api.names import ConditionType
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.policies.analysis import checks_of

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """Why not. `final`: this reference cannot be served by waiting, the spec must change."""

    reason: str
    message: str
    final: bool = False
    withdraws: bool = True


@dataclass(frozen=True)
class Candidate:
    """A ModelVersion that exists, parsed."""

    name: str
    namespace: str
    spec: ModelVersionSpec
    status: ModelVersionStatus


def refusal(namespace: str, name: str, version: Manifest | None) -> Refusal | None:
    """The first reason why this version cannot be served, or None."""
    if version is None or version["metadata"].get("deletionTimestamp"):
        message = f"there is no ModelVersion {name} in namespace {namespace}; serving starts once it exists"
        return Refusal("ModelVersionNotFound", message)
    try:
        spec = ModelVersionSpec.model_validate(version["spec"])
    except ValueError as error:
        return Refusal("ModelVersionInvalid", f"ModelVersion {name} cannot be read: {error}", withdraws=False)
    status = ModelVersionStatus.model_validate(version.get("status") or {})
    candidate = Candidate(name, namespace, spec, status)
    return next((hit for check in _CHECKS if (hit := check(candidate))), None)


def choose(model: ServedModel, versions: Mapping[str, Manifest], namespace: str) -> str | Refusal:
    """Name of the version that the spec asks for, which need not exist; or why its alias leads nowhere.

    Moving an alias takes two writes, one for each version. In between nobody or both carry it: what runs goes on.
    """
    if model.version_ref is not None:
        return model.version_ref.name
    assert model.alias is not None, "the schema asks for one of the two"
    wanted = model.alias
    carriers = sorted(
        name
        for name, version in versions.items()
        if version["spec"].get("modelName") == wanted.model_name
        and wanted.name in (version["spec"].get("aliases") or ())
        and not version["metadata"].get("deletionTimestamp")
    )
    if not carriers:
        message = (
            f"no ModelVersion of model {wanted.model_name} in namespace {namespace} has the alias {wanted.name}: add "
            "it to spec.aliases of the version to serve"
        )
        return Refusal("AliasNotFound", message, withdraws=False)
    if len(carriers) > 1:
        message = f"{' and '.join(carriers)} have the alias {wanted.name}: remove it from all but the one to serve"
        return Refusal("AliasAmbiguous", message, withdraws=False)
    return carriers[0]


def adapter_refusal(name: str, spec: ModelVersionSpec) -> Refusal | None:
    """Why an adapter is not served; None for a version of kind Full."""
    if spec.kind is ModelKind.FULL:
        return None
    if spec.adapter_type in (AdapterType.PREFIX_TUNING, AdapterType.LLAMA_ADAPTER):
        message = (
            f"ModelVersion {name} is a {spec.adapter_type} adapter, which cannot be merged into its base, and vLLM "
            "does not serve it: load it with peft, or refer to a version of kind Full (method.lora or full makes one)"
        )
    else:
        message = (
            f"ModelVersion {name} is an adapter, which cannot be served by itself: refer to a version of kind "
            "Full (a FineTuneJob with export.merge: true makes one)"
        )
    return Refusal("AdapterNotServable", message, final=True)


def _adapter(version: Candidate) -> Refusal | None:
    return adapter_refusal(version.name, version.spec)


def _tampered(version: Candidate) -> Refusal | None:
    for condition in version.status.conditions:
        if condition.type == ConditionType.VERIFIED and condition.status is ConditionStatus.FALSE:
            return Refusal(condition.reason, f"ModelVersion {version.name}: {condition.message}", final=True)
    return None


def _rejected(version: Candidate) -> Refusal | None:
    approval = version.spec.approval
    if approval is None or approval.decision is Decision.APPROVED:
        return None
    because = f" ({approval.reason})" if approval.reason else ""
    message = f"ModelVersion {version.name} was rejected by {approval.approved_by}{because}: refer to another version"
    return Refusal("Rejected", message, final=True)


def _unverified(version: Candidate) -> Refusal | None:
    """Not yet verified: nothing speaks against a revision that already runs, whose server checked the digest."""
    if version.status.verified_digest == version.spec.artifact.digest:
        return None
    message = f"ModelVersion {version.name} is not verified yet; serving starts once it is"
    return Refusal("NotVerified", message, withdraws=False)


def _unapproved(version: Candidate) -> Refusal | None:
    approval = version.spec.approval
    if approval is not None and approval.digest == version.spec.artifact.digest:
        return None
    message = (
        f"ModelVersion {version.name} waits for approval; its Approved condition says how to give it: "
        f"kubectl -n {version.namespace} describe modelversion {version.name}"
    )
    return Refusal("NotApproved", message)


# Approval before verification: a version that lost its approval must stop even while it is verified again.
_CHECKS: tuple[Callable[[Candidate], Refusal | None], ...] = (
    _adapter,
    _tampered,
    _rejected,
    _unapproved,
    _unverified,
)


def name_refusal(name: str) -> Refusal | None:
    """A service's name is also the name of its Service, where DNS allows less than elsewhere (RFC 1035)."""
    if re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        return None
    message = (
        f"{name!r} cannot be the name of a Service: create the InferenceService again under a name of at most 63 "
        "letters, digits and '-' that starts with a letter"
    )
    return Refusal("InvalidName", message, final=True, withdraws=False)


def provider_refusal(provider: TrafficProvider) -> Refusal:
    """The cluster does not know the objects that this provider routes by."""
    name = "Istio" if provider is TrafficProvider.ISTIO else "the Gateway API"
    message = f"{name} is not installed in this cluster: install it, or set traffic.provider to another one"
    return Refusal(f"{provider.value}NotInstalled", message, withdraws=False)


def measure_refusal(spec: InferenceServiceSpec, prometheus_url: str) -> Refusal | None:
    """Metrics are asked of a Prometheus, and the operator has to know which."""
    if prometheus_url or not checks_of(spec.rollout):
        return None
    message = (
        "the rollout is judged by metrics, and this operator knows no Prometheus: set prometheus.url of the chart, or "
        "write rollout.metrics: [] to judge by readiness and probes alone"
    )
    return Refusal("PrometheusNotConfigured", message, final=True, withdraws=False)


def claim_refusal(namespace: str, uri: str) -> Refusal:
    """The artifact's claim is gone: a running revision has it mounted and goes on."""
    message = f"{uri}: there is no PersistentVolumeClaim of this name in namespace {namespace}"
    return Refusal("ClaimNotFound", f"{message}; serving starts once it exists", withdraws=False)
