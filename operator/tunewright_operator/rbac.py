"""What the operator may do, and nothing else: the chart's Role is compared with this table, and this table with the
verbs that the apiserver's audit log saw in the tests.

Children are created by POST and changed by server-side apply. Whether a name is somebody else's is told by a list.
"""

from tunewright_api.names import GROUP

# (API group, resource) -> verbs
VERBS: dict[tuple[str, str], frozenset[str]] = {
    # kopf watches, and patches the finalizer in; the status is applied to the subresource.
    (GROUP, "finetunejobs"): frozenset({"list", "watch", "patch"}),
    (GROUP, "finetunejobs/status"): frozenset({"patch"}),
    (GROUP, "modelversions"): frozenset({"get", "list", "watch", "create", "patch"}),
    (GROUP, "modelversions/status"): frozenset({"patch"}),
    (GROUP, "inferenceservices"): frozenset({"list", "watch", "patch"}),
    (GROUP, "inferenceservices/status"): frozenset({"patch"}),
    # Children.
    ("batch", "jobs"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("apps", "deployments"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("", "services"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("", "configmaps"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("networking.k8s.io", "networkpolicies"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("policy", "poddisruptionbudgets"): frozenset({"list", "watch", "create", "patch", "delete"}),
    ("", "pods"): frozenset({"list", "watch"}),
    # Children of kinds that may be installed, or not, at any time: they are listed, never watched.
    ("networking.istio.io", "virtualservices"): frozenset({"list", "create", "patch", "delete"}),
    ("networking.istio.io", "destinationrules"): frozenset({"list", "create", "patch", "delete"}),
    ("security.istio.io", "peerauthentications"): frozenset({"list", "create", "patch", "delete"}),
    ("security.istio.io", "authorizationpolicies"): frozenset({"list", "create", "patch", "delete"}),
    ("gateway.networking.k8s.io", "httproutes"): frozenset({"list", "create", "patch", "delete"}),
    # Whether what a job refers to is there: said before anything is queued, and not by a container that cannot start
    # once a node was found. A Secret is looked at for its keys; metadata alone would not show it.
    ("", "persistentvolumeclaims"): frozenset({"get"}),
    ("", "secrets"): frozenset({"get"}),
    ("", "events"): frozenset({"create"}),
}
