"""The parts of the cluster that can be tried without one: processes, audit lines, images, clean-up, backends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from e2e.cluster import backends, cgroups, cleanup, images
from e2e.cluster.audit import AuditLog
from e2e.cluster.errors import ClusterError
from e2e.cluster.process import Service, Supervisor, start_ticks
from e2e.cluster.wait import wait_for

SLEEP = Service("sleeper", ("sleep", "60"))


def test_a_service_is_started_once_and_found_by_another_supervisor(tmp_path: Path) -> None:
    first, second = (Supervisor(tmp_path, detached=True) for _ in range(2))
    assert first.start(SLEEP)
    assert not second.start(SLEEP)
    assert second.pid("sleeper") == first.pid("sleeper")
    second.stop("sleeper")
    assert first.pid("sleeper") is None
    assert first.names() == []


def test_a_recycled_pid_is_not_taken_for_the_service(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, detached=True)
    (tmp_path / "pids").mkdir()
    record = {"pid": os.getpid(), "ticks": (start_ticks(os.getpid()) or 0) - 1, "argv": []}
    (tmp_path / "pids" / "sleeper.json").write_text(json.dumps(record))
    assert supervisor.pid("sleeper") is None
    supervisor.stop("sleeper")  # and this test lives on


def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, detached=False)
    stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    supervisor.start(Service("stubborn", (sys.executable, "-c", stubborn)))
    wait_for("start", lambda: supervisor.log("stubborn").read_text(), 10)
    supervisor.stop("stubborn", grace=0.1)
    assert supervisor.pid("stubborn") is None


def test_an_early_end_is_told_with_the_log(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, detached=False)
    supervisor.start(Service("broken", ("sh", "-c", "echo no such luck >&2; exit 3")))
    wait_for("end", lambda: supervisor.pid("broken") is None, 10)
    with pytest.raises(ClusterError, match=r"(?s)broken ended early.*no such luck"):
        supervisor.require("broken")


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from e2e.cluster.process import Service, Supervisor
supervisor = Supervisor(Path({str(tmp_path)!r}), detached=False)
supervisor.start(Service("sleeper", ("sleep", "60")))
print(supervisor.pid("sleeper"), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for("end of the child", lambda: start_ticks(child) is None, 30)


def test_a_wait_that_fails_says_what_for() -> None:
    with pytest.raises(ClusterError, match=r"^moonrise: not so after 0 s\. Look up\.$"):
        wait_for("moonrise", lambda: False, 0, hint=lambda: "Look up.")


def audit_line(audit_id: str, verb: str, user: str = "jane", code: int = 200, stage: str = "ResponseComplete") -> str:
    raw = {
        "auditID": audit_id,
        "stage": stage,
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": "pods", "namespace": "default", "name": "a"},
        "responseStatus": {"code": code},
    }
    return json.dumps(raw) + "\n"


def test_audit_events_are_filtered_and_counted_once(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    assert log.events() == []
    log.path.write_text(
        audit_line("1", "watch", stage="ResponseStarted")
        + audit_line("2", "create", code=201)
        + audit_line("3", "delete", user="joe")
        + audit_line("1", "watch")
    )
    assert [event.verb for event in log.events(user="jane")] == ["watch", "create"]
    assert [(event.verb, event.user) for event in log.writes()] == [("create", "jane"), ("delete", "joe")]
    (created,) = log.events(verbs={"create"}, resource="pods", namespace="default")
    assert (created.name, created.code) == ("a", 201)
    mark = log.mark()
    with log.path.open("a") as file:
        file.write(audit_line("4", "patch") + '{"half a li')
    assert [event.verb for event in log.events(since=mark)] == ["patch"]


def test_a_scratch_image_holds_one_program(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(b"program")
    archive = images.scratch_image("example/hello:1", program)
    assert archive == images.scratch_image("example/hello:1", program)
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        files = {member.name: outer.extractfile(member).read() for member in outer}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["example/hello:1"]
    config = json.loads(files[manifest["Config"]])
    assert config["config"]["Entrypoint"] == ["/hello"]
    with tarfile.open(fileobj=io.BytesIO(files[manifest["Layers"][0]])) as layer:
        assert [(member.name, member.mode) for member in layer] == [("hello", 0o755)]


def test_the_names_of_imported_images_are_read() -> None:
    output = "unpacking docker.io/library/a:1 (sha256:12)...done\nunpacking b/c:2 (sha256:34)...done\n"
    assert images.imported_names(output) == ["docker.io/library/a:1", "b/c:2"]


MOUNTS = """\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
tmpfs /run/a tmpfs rw 0 0
tmpfs /run/a/with\\040space tmpfs rw 0 0
tmpfs /run/a/b/c tmpfs rw 0 0
tmpfs /run/ab tmpfs rw 0 0
"""


def test_mounts_are_removed_from_the_inside() -> None:
    assert cleanup.mounts_below(Path("/run/a"), MOUNTS) == ["/run/a/with space", "/run/a/b/c"]


def test_every_cgroup_hierarchy_is_found() -> None:
    assert cgroups.hierarchies(MOUNTS) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def test_only_our_pods_are_removed_from_the_cni_results(tmp_path: Path) -> None:
    for name in ("tunewright-abc-eth0", "cni-loopback-abc-lo", "other-def-eth0", "cni-loopback-def-lo"):
        (tmp_path / name).touch()
    assert {path.name for path in cleanup.our_cni_results(tmp_path)} == {"tunewright-abc-eth0", "cni-loopback-abc-lo"}


def test_kind_is_told_name_image_and_kubeconfig() -> None:
    assert backends.kind_create(Path("/k")) == [
        "kind",
        "create",
        "cluster",
        "--name=tunewright",
        "--image=kindest/node:v1.34.4",
        "--kubeconfig=/k",
        "--wait=120s",
    ]
    assert backends.kind_delete() == ["kind", "delete", "cluster", "--name=tunewright"]
    assert backends.kind_load("a.tar") == ["kind", "load", "image-archive", "a.tar", "--name=tunewright"]
    assert backends.kind_load("-") == ["kind", "load", "image-archive", "/dev/stdin", "--name=tunewright"]
    assert backends.kind_kubeconfig(Path("/k"))[:3] == ["kind", "export", "kubeconfig"]


def test_the_backend_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    assert isinstance(backends.select(), backends.Local)
    monkeypatch.setenv("CLUSTER", "kubeconfig")
    assert isinstance(backends.select(), backends.Given)
    monkeypatch.setenv("CLUSTER", "swarm")
    with pytest.raises(ClusterError, match="use local, kubeconfig or kind"):
        backends.select()


def test_a_given_cluster_needs_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(ClusterError, match="needs KUBECONFIG"):
        backends.Given().kubeconfig()
