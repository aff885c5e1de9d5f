"""Can this job work at all? Ordered small checks, first hit wins; nothing is queued before all have passed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewright_api.dataset import S3_CREDENTIALS
from tunewright_api.finetunejob import FineTuneJobSpec
from tunewright_api.names import LABEL_JUDGE

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the spec refers to, as found: None for what is not there.

    `claims` by name, with the field of the spec that names each in `fields`; `secrets` by name.
    """

    namespace: str
    uid: str
    claims: Mapping[str, Manifest | None]
    fields: Mapping[str, str]
    output_claim: str
    secrets: Mapping[str, Manifest | None]
    version_name: str
    version_owner: str | None  # uid of the job that registered it; "" when a person did, None when it is not there


@dataclass(frozen=True)
class Refusal:
    """Why the job is not accepted, and what to do about it.

    `final` when the job itself cannot go on; otherwise it waits for something that somebody may be about to create.
    """

    reason: str
    message: str
    final: bool = True


@dataclass(frozen=True)
class SecretUse:
    """A key of a Secret that a pod of the job gets, and the field of the spec that names it.

    `label` must be "true" on the Secret where the value leaves for an address that the job's author chooses.
    """

    name: str
    field: str
    key: str
    label: str | None = None


def secrets_of(spec: FineTuneJobSpec) -> list[SecretUse]:
    """The Secrets that the job needs."""
    found = []
    if spec.base_model.secret_ref:
        found.append(SecretUse(spec.base_model.secret_ref.name, "baseModel.secretRef", "HF_TOKEN"))
    if spec.dataset.secret_ref:
        name = spec.dataset.secret_ref.name
        found += [SecretUse(name, "dataset.secretRef", key) for key in S3_CREDENTIALS]
    judge = spec.evaluation.judge
    if judge and judge.secret_ref:
        found.append(SecretUse(judge.secret_ref.name, "evaluation.judge.secretRef", "API_KEY", LABEL_JUDGE))
    return found


Check = Callable[[FineTuneJobSpec, Facts], Refusal | None]


def check_acceptance(spec: FineTuneJobSpec, facts: Facts) -> Refusal | None:
    """The first refusal, or None."""
    return next((refusal for check in _CHECKS if (refusal := check(spec, facts))), None)


def _claims_exist(spec: FineTuneJobSpec, facts: Facts) -> Refusal | None:
    for name, claim in sorted(facts.claims.items()):
        if claim is None:
            return Refusal(
                "ClaimNotFound",
                f"spec.{facts.fields[name]} names the PersistentVolumeClaim {name}, which does not exist in namespace "
                f"{facts.namespace}: create it, and the job goes on by itself",
                final=False,
            )
    return None


def _claims_are_shared(spec: FineTuneJobSpec, facts: Facts) -> Refusal | None:
    if spec.num_nodes == 1:
        return None
    for name, claim in sorted(facts.claims.items()):
        writes = name == facts.output_claim
        wanted = {"ReadWriteMany"} if writes else {"ReadWriteMany", "ReadOnlyMany"}
        modes = (claim or {}).get("spec", {}).get("accessModes") or []
        if not wanted & set(modes):
            return Refusal(
                "ClaimNotShared",
                f"spec.numNodes is {spec.num_nodes}, but the PersistentVolumeClaim {name} (spec.{facts.fields[name]}) "
                f"is only {', '.join(modes)}: use a claim that is {' or '.join(sorted(wanted))}, or one node",
            )
    return None


def _secrets_exist(spec: FineTuneJobSpec, facts: Facts) -> Refusal | None:
    for use in secrets_of(spec):
        secret = facts.secrets.get(use.name)
        if secret is None:
            return Refusal(
                "SecretNotFound",
                f"spec.{use.field} names the Secret {use.name}, which does not exist in namespace "
                f"{facts.namespace}: create it with the key {use.key}, and the job goes on by itself",
                final=False,
            )
        if use.key not in (secret.get("data") or {}):
            return Refusal(
                "SecretKeyNotFound",
                f"the Secret {use.name} has no key {use.key}: add it, and the job goes on by itself",
                final=False,
            )
        if use.label and (secret["metadata"].get("labels") or {}).get(use.label) != "true":
            return Refusal(
                "SecretNotAllowed",
                f"the Secret {use.name} lacks the label {use.label}=true, by which its owner lets spec.{use.field} "
                "have it: add it, and the job goes on by itself",
                final=False,
            )
    return None


def _version_is_free(spec: FineTuneJobSpec, facts: Facts) -> Refusal | None:
    if facts.version_owner is None or facts.version_owner == facts.uid:
        return None
    return version_exists(facts.version_name)


def version_exists(name: str) -> Refusal:
    """The refusal to replace a registered version."""
    return Refusal(
        "VersionExists",
        f"the ModelVersion {name} exists already and versions never change: commit a FineTuneJob with a new name and a "
        "new output.version",
    )


_CHECKS: tuple[Check, ...] = (_claims_exist, _claims_are_shared, _secrets_exist, _version_is_free)
