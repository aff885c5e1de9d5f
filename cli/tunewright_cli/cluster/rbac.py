"""Roles and bindings, as far as the user may read them."""

from functools import partial

from tunewright_cli.cluster.client import Api, Object
from tunewright_cli.parallel import gather

_ROOT = "/apis/rbac.authorization.k8s.io/v1"


def read_roles(api: Api, namespace: str = "") -> list[Object]:
    """ClusterRoles, and the Roles of a namespace or of all of them."""
    return _read(api, "clusterroles", _within(namespace, "roles"))


def read_bindings(api: Api, namespace: str = "") -> list[Object]:
    """ClusterRoleBindings, and the RoleBindings of a namespace or of all of them."""
    return _read(api, "clusterrolebindings", _within(namespace, "rolebindings"))


def _within(namespace: str, plural: str) -> str:
    return f"namespaces/{namespace}/{plural}" if namespace else plural


def _read(api: Api, *paths: str) -> list[Object]:
    lists = gather(partial(api.list_all, f"{_ROOT}/{path}") for path in paths)
    return [item for items, _ in lists for item in items]
