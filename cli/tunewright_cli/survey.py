"""Read from the cluster, side by side, all that the checks look at. Whatever may not be read is told as such."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from tunewright_api.names import GROUP
from tunewright_cli.checks.approval import POLICY
from tunewright_cli.checks.prometheus import URL_VARIABLE
from tunewright_cli.checks.snapshot import OPERATOR_LABELS, Seen, Snapshot, environment
from tunewright_cli.checks.traffic import GATEWAY_GROUP, ISTIO_GROUPS
from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.cluster.errors import ApiError, ForbiddenError, NotFoundError
from tunewright_cli.cluster.rbac import read_bindings, read_roles
from tunewright_cli.kinds import ROOT, Kind
from tunewright_cli.parallel import gather, start

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_AUTHORIZATION = "/apis/authorization.k8s.io/v1"

# What the operator cannot do without, one verb for each thing it touches: (group, resource, subresource, verb).
NEEDS = (
    (GROUP, "finetunejobs", "", "watch"),
    (GROUP, "modelversions", "", "create"),
    (GROUP, "inferenceservices", "status", "patch"),
    ("batch", "jobs", "", "create"),
    ("apps", "deployments", "", "patch"),
    ("", "services", "", "create"),
    ("", "configmaps", "", "create"),
    ("networking.k8s.io", "networkpolicies", "", "create"),
    ("policy", "poddisruptionbudgets", "", "create"),
    ("", "persistentvolumeclaims", "", "get"),
    ("", "secrets", "", "get"),
    ("", "pods", "", "watch"),
    ("", "events", "", "create"),
)
# The same for the providers of traffic, where their kinds are there.
TRAFFIC_NEEDS = (
    (ISTIO_GROUPS[0], "virtualservices", "", "patch"),
    (ISTIO_GROUPS[0], "destinationrules", "", "patch"),
    (ISTIO_GROUPS[1], "peerauthentications", "", "patch"),
    (ISTIO_GROUPS[1], "authorizationpolicies", "", "patch"),
    (GATEWAY_GROUP, "httproutes", "", "patch"),
)

Need = tuple[str, str, str, str]


def survey(api: Api, namespace: str) -> Snapshot:
    """The snapshot; raises UnreachableError and UnauthorizedError of the first request."""
    first = api.call("GET", "/version")
    sent = first.headers.get("Date")
    expected = start(_expected_crds)
    looks = _looks(api, namespace)
    seen: dict[str, Any] = dict(zip(looks, gather(partial(look, read) for read in looks.values()), strict=True))
    found = {name: seen.pop(name) for name in list(seen) if ":" in name}
    snapshot = Snapshot(
        server=api.config.server,
        namespace=namespace,
        now=datetime.now(UTC),
        server_time=parsedate_to_datetime(sent) if sent else None,
        version=look(lambda: api.get("/version")),
        may_read={kind.plural: found[f"read:{kind.plural}"] for kind in Kind},
        crds={kind.plural: found[f"crd:{kind.plural}"] for kind in Kind},
        expected_crds=expected(),
        **seen,
    )
    return _with_operator(api, snapshot)


def look(read: Callable[[], Any]) -> Seen:
    """What `read` gives, or why it gives nothing."""
    try:
        return Seen(read())
    except NotFoundError as error:
        return Seen(missing=True, error=str(error))
    except ForbiddenError as error:
        return Seen(error=str(error), denied=True)
    except ApiError as error:
        return Seen(error=str(error))


def _looks(api: Api, namespace: str) -> Mapping[str, Callable[[], Any]]:
    """name of the field -> how to read it."""

    def everywhere(path: str, **selectors: str) -> Callable[[], Any]:
        return lambda: api.list_all(path, selectors)[0]

    def somewhere(root: str, plural: str) -> Callable[[], Any]:
        """Objects of all namespaces; of one where the user may not list all."""

        def read() -> list[Object]:
            try:
                return api.list_all(f"{root}/{plural}")[0]
            except ForbiddenError:
                return api.list_all(f"{root}/namespaces/{namespace}/{plural}")[0]

        return read

    operator = ",".join(f"{key}={value}" for key, value in OPERATOR_LABELS.items())
    return {
        **{f"read:{kind.plural}": partial(_may_list, api, kind.plural, namespace) for kind in Kind},
        **{
            f"crd:{kind.plural}": partial(
                api.get, f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}"
            )
            for kind in Kind
        },
        "operators": everywhere("/apis/apps/v1/deployments", labelSelector=operator),
        "policy": partial(api.get, f"{_ADMISSION}/validatingadmissionpolicies/{POLICY}"),
        "binding": partial(api.get, f"{_ADMISSION}/validatingadmissionpolicybindings/{POLICY}"),
        "roles": partial(read_roles, api),
        "role_bindings": partial(read_bindings, api),
        "jobs": somewhere(ROOT, Kind.JOB.plural),
        "versions": somewhere(ROOT, Kind.VERSION.plural),
        "services": somewhere(ROOT, Kind.SERVICE.plural),
        "groups": lambda: [one["name"] for one in api.get("/apis")["groups"]],
        "istiods": everywhere("/apis/apps/v1/deployments", labelSelector="app=istiod"),
        "istio_roots": everywhere("/api/v1/configmaps", fieldSelector="metadata.name=istio-ca-root-cert"),
        "gateway_classes": everywhere("/apis/gateway.networking.k8s.io/v1/gatewayclasses"),
        "istio_cni": everywhere("/apis/apps/v1/daemonsets", labelSelector="k8s-app=istio-cni-node"),
        "storage_classes": everywhere("/apis/storage.k8s.io/v1/storageclasses"),
        "claims": somewhere("/api/v1", "persistentvolumeclaims"),
        "nodes": everywhere("/api/v1/nodes"),
        "namespaces": everywhere("/api/v1/namespaces"),
    }


def _may_list(api: Api, plural: str, namespace: str) -> bool:
    attributes = {"group": GROUP, "resource": plural, "verb": "list", "namespace": namespace}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer: Object = api.create(f"{_AUTHORIZATION}/selfsubjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


def _expected_crds() -> dict[str, Object]:
    """The definitions of this version, by plural."""
    from tunewright_api.crd import build_crds

    return {crd["spec"]["names"]["plural"]: crd for crd in build_crds().values()}


# --- what follows from the operator's Deployment -----------------------------------------------


def _with_operator(api: Api, snapshot: Snapshot) -> Snapshot:
    deployment = snapshot.operator
    if deployment is None:
        return snapshot
    space = deployment["metadata"]["namespace"]
    labels = deployment["spec"]["selector"].get("matchLabels") or {}
    selector = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
    pods, denied, prometheus = gather(
        partial(look, read)
        for read in (
            lambda: api.list_all(f"/api/v1/namespaces/{space}/pods", selector)[0],
            lambda: denied_needs(api, deployment, snapshot.groups.value or []),
            lambda: _ask_prometheus(api, environment(deployment).get(URL_VARIABLE, ""), space),
        )
    )
    changes = {"operator_pods": pods, "denied": denied, "prometheus": prometheus}
    return Snapshot(**{**snapshot.__dict__, **changes})


def denied_needs(api: Api, deployment: Object, groups: list[str]) -> list[str]:
    """What the operator's account may not do, as `create batch/jobs`."""
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    user = f"system:serviceaccount:{deployment['metadata']['namespace']}:{account}"
    watched = [one for one in environment(deployment).get("TUNEWRIGHT_WATCH_NAMESPACES", "").split(",") if one]
    needs = [*NEEDS, *(need for need in TRAFFIC_NEEDS if need[0] in groups)]
    # In watched namespaces alone, if there are any: there it has a RoleBinding in each.
    answers = gather(partial(_may, api, user, need, watched[0] if watched else "") for need in needs)
    return [
        f"{verb} {f'{group}/' if group else ''}{resource}{f'/{part}' if part else ''}"
        for (group, resource, part, verb), allowed in zip(needs, answers, strict=True)
        if not allowed
    ]


def _may(api: Api, user: str, need: Need, namespace: str) -> bool:
    group, resource, subresource, verb = need
    attributes = {
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        "namespace": namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer: Object = api.create(f"{_AUTHORIZATION}/subjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


def _ask_prometheus(api: Api, url: str, namespace: str) -> str | None:
    """Ask a Prometheus inside the cluster through the apiserver; raises NotFoundError where nobody answers.

    None where there is no URL. One outside of the cluster can only be asked by the operator.
    """
    if not url:
        return None
    target = service_of(url, namespace)
    if target is None:
        raise ApiError("it is outside of the cluster, where only the operator asks it", 0)
    space, name, port, scheme, prefix = target
    services = f"/api/v1/namespaces/{space}/services"
    try:
        return api.text(f"{services}/{scheme}:{name}:{port}/proxy{prefix}/-/ready")
    except ForbiddenError:
        raise
    except ApiError as error:
        api.get(f"{services}/{name}")
        if not _has_endpoints(api, space, name):
            raise NotFoundError(f"the Service {space}/{name} leads to no pod that is ready", error.status) from None
        raise ApiError(
            f"the apiserver cannot ask it ({error}), which does not mean that the operator cannot", 0
        ) from None


def _has_endpoints(api: Api, namespace: str, service: str) -> bool:
    """Whether anything ready is behind a Service."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    slices, _ = api.list_all(path, {"labelSelector": f"kubernetes.io/service-name={service}"})
    endpoints = [one for some in slices for one in some.get("endpoints") or ()]
    return any((one.get("conditions") or {}).get("ready", True) for one in endpoints)


def service_of(url: str, namespace: str) -> tuple[str, str, int, str, str] | None:
    """(namespace, name, port, scheme, path) of the Service behind a URL; None for a host that is none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    match = re.fullmatch(r"([a-z0-9-]+)(?:\.([a-z0-9-]+)(?:\.svc(?:\..+)?)?)?", host)
    if match is None or host == "localhost":
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return match[2] or namespace, match[1], port, parts.scheme, parts.path.rstrip("/")
