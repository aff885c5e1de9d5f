"""Prometheus: rollouts that are judged by metrics need one that the operator knows, and that answers."""

from tunewright_cli.chain.model import Object
from tunewright_cli.checks.finding import Finding, broken, ok, unknown
from tunewright_cli.checks.snapshot import Snapshot, full_name, join_names

URL_VARIABLE = "TUNEWRIGHT_PROMETHEUS_URL"


def configured(snapshot: Snapshot) -> Finding | None:
    """A service is judged by metrics, and the operator does not know whom to ask."""
    users = judged_by_metrics(snapshot)
    if not users or snapshot.operator is None or snapshot.operator_env.get(URL_VARIABLE):
        return None
    sentence = f"{join_names(users)} is judged by metrics, and the operator knows no Prometheus"
    fix = "helm upgrade --set prometheus.url=http://NAME.NAMESPACE:9090, or write rollout.metrics: []"
    return broken("Prometheus", sentence, fix)


def answers(snapshot: Snapshot) -> Finding | None:
    """The Prometheus that the operator asks does not answer."""
    url = snapshot.operator_env.get(URL_VARIABLE)
    if not url:
        return None
    silent = [full_name(one) for one in snapshot.services.items if _last_reason(one) == "PrometheusUnavailable"]
    if silent:
        sentence = f"Prometheus ({url}) did not answer at the last check of {join_names(silent)}"
        return broken("Prometheus", sentence, "correct prometheus.url of the chart, or start Prometheus")
    seen = snapshot.prometheus
    if seen.value is not None:
        return ok("Prometheus", f"{url} answers")
    if seen.missing:
        fix = "correct prometheus.url of the chart, or start Prometheus"
        return broken("Prometheus", f"no Prometheus answers at {url}: {seen.error}", fix)
    return unknown("Prometheus", url, seen)


def judged_by_metrics(snapshot: Snapshot) -> list[str]:
    """Services whose rollout looks at metrics, as NAMESPACE/NAME."""
    return [full_name(one) for one in snapshot.services.items if _looks_at_metrics(one)]


def _looks_at_metrics(service: Object) -> bool:
    rollout = service["spec"].get("rollout") or {}
    strategy = rollout.get("strategy") or "BlueGreen"
    if strategy == "Recreate" or rollout.get("metrics") == []:
        return False
    return bool(strategy == "Canary" or rollout.get("metrics") or rollout.get("mirror"))


def _last_reason(service: Object) -> str:
    status = service.get("status", {})
    return str((status.get("analysis") or {}).get("reason") or "") if status.get("candidate") else ""
