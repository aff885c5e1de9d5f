"""The operator as a process: probes, metrics, what it leaves on users' objects, what it is allowed, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from e2e.cluster.wait import wait_for
from tests.integration.conftest import OPERATOR_USER, ROOT, Namespace, Operator, conditions
from tests.integration.kubelet import Kubelet, Play
from tunewright_api.names import FIELD_MANAGER, FINALIZER
from tunewright_operator.rbac import VERBS


def test_probes_metrics_and_a_quick_end(namespace: Namespace, running: Operator, kubelet: Kubelet) -> None:
    kubelet.scripts[namespace.name] = lambda stage, attempt, index: Play(None)
    namespace.create_job()
    namespace.wait_job("preparing", lambda status: status.get("stage") == "Preparing")
    assert running.ask("/healthz") == "ok"
    metrics = running.ask("/metrics")
    assert 'tunewright_objects{kind="FineTuneJob",state="Preparing"} 1.0' in metrics
    assert 'tunewright_reconcile_seconds_count{kind="FineTuneJob"}' in metrics
    started = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started < 10


def test_users_objects_carry_the_finalizer_and_nothing_else_of_ours(namespace: Namespace, running: Operator) -> None:
    created = namespace.create_job()
    job = namespace.wait_job("the job ended", lambda status: "Complete" in conditions(status))
    metadata = job["metadata"]
    assert metadata["finalizers"] == [FINALIZER]
    assert "annotations" not in metadata
    assert metadata["generation"] == 1
    assert job["spec"] == created["spec"]
    managers = {(entry["manager"], entry.get("subresource", "")) for entry in metadata["managedFields"]}
    assert (FIELD_MANAGER, "status") in managers


def test_events_tell_each_change_of_a_condition_once(namespace: Namespace, running: Operator) -> None:
    namespace.create_job()
    namespace.wait_job("the job ended", lambda status: "Complete" in conditions(status))

    def reasons() -> list[str]:
        events = namespace.list("/api/v1/events")
        return [e["reason"] for e in events if e["involvedObject"]["kind"] == "FineTuneJob"]

    wait_for("the last Event", lambda: "Registered" in reasons(), 10)
    assert reasons().count("Accepted") == 1
    assert reasons().count("Registered") == 1
    assert [
        reason for reason in ("DatasetReady", "Trained", "Evaluated", "Exported") if reasons().count(reason) != 1
    ] == []


def test_a_restart_of_the_operator_changes_nothing(namespace: Namespace, running: Operator) -> None:
    namespace.create_job()
    before = namespace.wait_job("the job ended", lambda status: "Complete" in conditions(status))
    time.sleep(2)
    running.stop()
    mark = namespace.plane.audit.mark()
    running.start()
    time.sleep(3)
    writes = [w for w in namespace.plane.audit.writes(user=OPERATOR_USER, since=mark) if w.namespace == namespace.name]
    assert [w for w in writes if "verify" not in w.name] == []
    assert namespace.job()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_an_unusable_setting_ends_the_process_with_a_sentence() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "crds", ROOT / "operator")))}
    env.pop("TUNEWRIGHT_TRAINER_IMAGE", None)
    done = subprocess.run(
        [sys.executable, "-m", "tunewright_operator"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "TUNEWRIGHT_TRAINER_IMAGE is not set" in done.stderr


def test_the_operator_asks_for_nothing_that_its_role_refuses(namespace: Namespace, running: Operator) -> None:
    namespace.create_job()
    namespace.wait_job("the job ended", lambda status: "Complete" in conditions(status))
    events = namespace.plane.audit.events(user=OPERATOR_USER)
    assert [e for e in events if e.code == 403] == []
    used = {
        (e.group, f"{e.resource}/{e.subresource}" if e.subresource else e.resource, e.verb)
        for e in events
        if e.resource
    }
    allowed = {(*resource, verb) for resource, verbs in VERBS.items() for verb in verbs}
    assert used <= allowed
