"""Everything kopf is told: how to log in, what to watch, what to index, whom to wake, one daemon per object.

No handler here creates, updates or annotates anything: kopf's only write is the finalizer that lets a loop end before
its object goes.
"""

import asyncio
import copy
import functools
from typing import Any

import kopf

from tunewright_api.names import FIELD_MANAGER, FINALIZER, GROUP, LABEL_MANAGED_BY, MANAGED_BY, VERSION, ConditionType
from tunewright_operator.config import OperatorConfig
from tunewright_operator.handlers.children import (
    INDEXES,
    VERSIONS,
    collect_children,
    owner_key,
    version_keys,
    wanted_versions,
)
from tunewright_operator.handlers.kinds import KINDS, Kind
from tunewright_operator.handlers.loop import Loop
from tunewright_operator.handlers.storage import NoDiffBaseStorage, NoProgressStorage
from tunewright_operator.handlers.wakeups import Wakeups
from tunewright_operator.kube.connection import bearer_token, load_configuration
from tunewright_operator.kube.protocol import Kube
from tunewright_operator.log import about
from tunewright_operator.metrics import Metrics
from tunewright_operator.reconcile.result import Event

# Kinds that only we create, by (group, version, plural); the watch asks for our label.
CHILDREN = (
    ("batch", "v1", "jobs"),
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("apps", "v1", "deployments"),
    ("policy", "v1", "poddisruptionbudgets"),
)
SERVICES = "services_by_version"


def build_settings() -> kopf.OperatorSettings:
    """kopf without its bookkeeping: nothing is stored in users' objects but the finalizer."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = NoProgressStorage()
    settings.persistence.diffbase_storage = NoDiffBaseStorage()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.loggers = False
    settings.posting.reporting_component = FIELD_MANAGER
    settings.posting.event_name_prefix = "tunewright-"
    # A loop ends as soon as its write in flight is answered; only then does the finalizer go.
    settings.background.instant_exit_timeout = 5.0
    for group, version, plural in CHILDREN:
        settings.watching.label_selectors[group, version, plural] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    return settings


def build_registry(kube: Kube, config: OperatorConfig, metrics: Metrics) -> kopf.OperatorRegistry:
    """All handlers of the operator."""
    registry = kopf.OperatorRegistry()
    wakeups = Wakeups()
    kopf.on.login(registry=registry)(_login)
    for resource in CHILDREN:
        kopf.index(*resource, id=resource[2], registry=registry)(_index_by_owner)
        kopf.on.event(*resource, id=f"wake-{resource[2]}", registry=registry)(functools.partial(_wake_owner, wakeups))
    for kind in KINDS:
        handler = functools.partial(_run_loop, kind, kube, config, metrics, wakeups)
        resource = (GROUP, VERSION, kind.plural)
        kopf.on.event(*resource, id=f"wake-{kind.plural}", registry=registry)(functools.partial(_wake_itself, wakeups))
        kopf.daemon(*resource, id=kind.plural, registry=registry, cancellation_timeout=10)(handler)
    versions = (GROUP, VERSION, "modelversions")
    kopf.on.event(*versions, id="wake-owners", registry=registry)(functools.partial(_wake_owner, wakeups))
    kopf.on.event(*versions, id="wake-services", registry=registry)(functools.partial(_wake_services, wakeups))
    kopf.index(*versions, id=VERSIONS, registry=registry)(_index_by_namespace)
    kopf.index(GROUP, VERSION, "inferenceservices", id=SERVICES, registry=registry)(_index_by_version)
    return registry


async def _login(**_: Any) -> kopf.ConnectionInfo:
    configuration = await load_configuration()
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=getattr(configuration, "ca_cert_data", None),
        insecure=not configuration.verify_ssl,
        token=await bearer_token(configuration),
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


async def _index_by_owner(body: kopf.Body, **_: Any) -> dict[Any, Any]:
    key = owner_key(body)
    return {key: _plain(body)} if key else {}


async def _index_by_namespace(body: kopf.Body, namespace: str, **_: Any) -> dict[Any, Any]:
    return {namespace: _plain(body)}


async def _index_by_version(body: kopf.Body, name: str, **_: Any) -> dict[Any, Any]:
    return dict.fromkeys(wanted_versions(body), name)


async def _wake_owner(wakeups: Wakeups, body: kopf.Body, **_: Any) -> None:
    if key := owner_key(body):
        wakeups.wake(key)


async def _wake_itself(wakeups: Wakeups, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Wake for what somebody else changed: our own status writes would make a loop that polls run without a pause."""
    metadata = body["metadata"]
    seen = [metadata.get(field) for field in ("generation", "labels", "annotations", "deletionTimestamp")]
    if memo.get("seen") != seen:
        memo["seen"] = copy.deepcopy(seen)
        wakeups.wake((body["kind"], metadata["namespace"], metadata["name"]))


async def _wake_services(
    wakeups: Wakeups, body: kopf.Body, namespace: str, memo: kopf.Memo, type: str | None, **indexes: Any
) -> None:
    """A version may be what a service asks for by name or alias, what it serves, or what it moves to: these look, when
    whether it may be served, or which alias it has, can have changed. A relist is no change."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    seen = [
        type == "DELETED" or body["metadata"].get("deletionTimestamp"),
        body.get("spec"),
        (body.get("status") or {}).get("verifiedDigest"),
        [condition for condition in conditions if condition["type"] == ConditionType.VERIFIED],
    ]
    if memo.get("told") == seen:
        return
    memo["told"] = copy.deepcopy(seen)
    services = {name for key in version_keys(body) for name in indexes[SERVICES].get(key, ())}
    for service in sorted(services):
        wakeups.wake(("InferenceService", namespace, service))


async def _run_loop(
    kind: Kind,
    kube: Kube,
    config: OperatorConfig,
    metrics: Metrics,
    wakeups: Wakeups,
    *,
    body: kopf.Body,
    stopped: Any,
    **kwargs: Any,
) -> None:
    uid, namespace, name = body["metadata"]["uid"], body["metadata"]["namespace"], body["metadata"]["name"]
    key = (kind.kind, namespace, name)
    indexes = {index: kwargs[index] for index in (*INDEXES, VERSIONS)}

    def post(event: Event) -> None:
        kopf.event(body, type=event.type, reason=event.reason, message=event.message)

    loop = Loop(
        key=key,
        kube=kube,
        config=config,
        metrics=metrics,
        reconcile=kind.load(),
        read=lambda: _plain(body),
        children=lambda: collect_children(uid, key, indexes),
        post=post,
    )
    with about(*key), wakeups.listen(key) as wake:
        # kopf's flag is awaitable but no coroutine, hence ensure_future.
        stopping = asyncio.ensure_future(stopped.wait())
        stopping.add_done_callback(lambda _: wake.set())
        try:
            await loop.run(wake, lambda: bool(stopped))
        finally:
            stopping.cancel()


def _plain(body: kopf.Body) -> dict[str, Any]:
    """The object as a plain dict, without the managed fields that nobody reads."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}
