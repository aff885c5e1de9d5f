"""The command line against a real apiserver: what it writes as whom, what a watch shows, and its exit codes.

No operator and no kubelet run: the tests write the statuses that they would.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.apiserver import ControlPlane, running_apiserver
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.node import PROBE_IMAGE
from e2e.cluster.wait import wait_for
from tests import cli_objects as make
from tests.helm import NAMESPACE as SYSTEM
from tests.helm import of_kind, rendered
from tunewright_cli.__main__ import run
from tunewright_cli.cluster.client import Api
from tunewright_cli.cluster.kubeconfig import Choice, load_config
from tunewright_cli.cluster.portforward import ForwardedConnection, PortForward
from tunewright_cli.exits import Exit

Object = dict[str, Any]
Run = Callable[..., Exit]

ROOT = Path(__file__).resolve().parents[2]
OLIVIA = "olivia@example.com"  # may approve
DEV = "dev@example.com"  # may edit
AUDITOR = "auditor@example.com"  # may edit, and read roles
PLURALS = {"FineTuneJob": "finetunejobs", "ModelVersion": "modelversions", "InferenceService": "inferenceservices"}
TEAM = f"/apis/tunewright.io/v1alpha1/namespaces/{make.NAMESPACE}"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An apiserver of this module's own: some tests break what is cluster-wide."""
    with running_apiserver(tmp_path_factory.mktemp("cli")) as plane:
        yield plane


@pytest.fixture(scope="module")
def plane(bare: ControlPlane) -> ControlPlane:
    """The apiserver with everything of the chart that needs no controller, and the team's people."""
    objects = of_kind(
        rendered(),
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "ServiceAccount",
        "Deployment",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    )
    spaces = [_named("v1", "Namespace", name) for name in (SYSTEM, make.NAMESPACE)]
    bare.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([*spaces, *objects, *_people()]))
    status = {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}
    bare.api.merge(f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/tunewright/status", status)
    wait_for("the kinds served", lambda: _served(bare), 30)
    create(bare, make.version("v9", decided=False, made_by=None))
    wait_for("the policy enforced", lambda: _is_enforced(bare), 30)
    return bare


def _served(plane: ControlPlane) -> bool:
    return all(plane.exists(f"/apis/tunewright.io/v1alpha1/{plural}") for plural in PLURALS.values())


def _people() -> list[Object]:
    reader = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}
    roles = [_named("rbac.authorization.k8s.io/v1", "ClusterRole", "auditor") | {"rules": [reader]}]
    grants = [(OLIVIA, "tunewright-approve"), *((user, "tunewright-edit") for user in (DEV, AUDITOR))]
    return [
        *roles,
        *(_binding("RoleBinding", user, role, make.NAMESPACE) for user, role in grants),
        _binding("ClusterRoleBinding", AUDITOR, "auditor"),
    ]


def _named(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def _binding(kind: str, user: str, role: str, namespace: str = "") -> Object:
    group = "rbac.authorization.k8s.io"
    made = _named(f"{group}/v1", kind, f"{user.partition('@')[0]}-{role}")
    made["metadata"] |= {"namespace": namespace} if namespace else {}
    return made | {
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def _is_enforced(plane: ControlPlane) -> bool:
    """The apiserver reads policies by watch: a moment passes until they hold."""
    patch = {"spec": {"approval": {"decision": "Approved", "approvedBy": "x", "digest": make.DIGESTS["v1"]}}}
    command = ("patch", "mv", "guide-v9", "-n", make.NAMESPACE, "--type=merge", "--dry-run=server")
    try:
        plane.kubectl(*command, "-p", json.dumps(patch))
    except ClusterError as error:
        return "your own user name" in str(error)
    return False


def create(plane: ControlPlane, item: Object) -> None:
    """Create an object of ours with its status, or set its status where it is there."""
    name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
    path = f"/apis/tunewright.io/v1alpha1/namespaces/{namespace}/{PLURALS[item['kind']]}"
    if not plane.exists(f"{path}/{name}"):
        plane.api.create(path, item | {"metadata": {"name": name, "namespace": namespace}})
    generation = plane.api.get(f"{path}/{name}")["metadata"]["generation"]
    plane.api.merge(f"{path}/{name}/status", {"status": item["status"] | {"observedGeneration": generation}})


@pytest.fixture
def cli(plane: ControlPlane) -> Run:
    """Run a command in the team's namespace, as an administrator or as `user`."""
    return cli_of(plane)


def cli_of(plane: ControlPlane) -> Run:
    def command(*arguments: str, user: str = "") -> Exit:
        kubeconfig = plane.kubeconfig_for(user) if user else plane.kubeconfig
        return run([*arguments, "--kubeconfig", str(kubeconfig), "-n", make.NAMESPACE])

    return command


@pytest.fixture
def chain(plane: ControlPlane) -> Iterator[None]:
    """A job, two versions, and a service on its way from one to the other."""
    items = [
        make.job(),
        make.version(aliases=["production"]),
        make.version("v2", made_by="guide-2", decided=False),
        make.service(spec=make.canary(), status=make.rolling()),
    ]
    for item in items:
        decided = item["spec"].pop("approval", None)
        create(plane, item)
        if decided:
            patch = {"spec": {"approval": decided}}
            path = f"{TEAM}/modelversions/{item['metadata']['name']}"
            Api(load_config(Choice(str(plane.kubeconfig_for(OLIVIA))))).merge(path, patch)
            create(plane, item)
    yield
    for item in items:
        plane.api.delete(f"{TEAM}/{PLURALS[item['kind']]}/{item['metadata']['name']}")


# --- check ------------------------------------------------------------------------------------


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """check -> (level, message) of what is not well."""
    told = json.loads(capsys.readouterr().out)
    return {one["check"]: (one["level"], one["message"]) for one in told if one["level"] != "OK"}


def test_a_bare_cluster_lacks_everything(bare: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    if bare.exists("/apis/tunewright.io/v1alpha1"):
        pytest.skip("the chart is installed by now")
    assert cli_of(bare)("check", "-o", "json") is Exit.NOT_READY
    told = findings(capsys)
    assert {"CRDs", "Operator", "Approval"} <= {check for check, (level, _) in told.items() if level == "Broken"}


def test_a_whole_installation_is_well(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("check", "-o", "json") is Exit.OK
    told = findings(capsys)
    assert {check: level for check, (level, _) in told.items() if level == "Broken"} == {}
    assert told["Images"] == ("Warning", "images.operator, images.trainer, images.server have no digest")


@contextmanager
def without(plane: ControlPlane, path: str) -> Iterator[None]:
    """The object is away for a while."""
    item = plane.api.get(path)
    plane.api.delete(path)
    try:
        yield
    finally:
        item["metadata"] = {key: item["metadata"][key] for key in ("name", "labels") if key in item["metadata"]}
        item.pop("status", None)
        plane.api.create(path.rpartition("/")[0], item)


@pytest.mark.parametrize(
    ("path", "check", "sentence"),
    [
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tunewright-approval",
            "Approval",
            "the policy is not in force",
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/tunewright-approval",
            "Approval",
            "whoever may edit a ModelVersion can approve it",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/tunewright-operator",
            "Operator's role",
            "the operator may not watch tunewright.io/finetunejobs",
        ),
    ],
    ids=["no binding", "no policy", "no role"],
)
def test_what_is_missing_is_named(
    plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str], *, path: str, check: str, sentence: str
) -> None:
    with without(plane, path):
        wait_for("the authorizer to see it", lambda: cli("check", "-o", "json") is Exit.NOT_READY, 20)
        capsys.readouterr()
        assert cli("check", "-o", "json") is Exit.NOT_READY
        told = findings(capsys)
    assert told[check][0] == "Broken"
    assert sentence in told[check][1]


def test_check_waits_until_it_is_well(plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tunewright-approval"
    with without(plane, path):
        assert cli("check", "--wait", "--timeout", "0.1") is Exit.NOT_READY
        ended: list[Exit] = []
        waiting = threading.Thread(target=lambda: ended.append(cli("check", "--wait", "--timeout", "60")))
        waiting.start()
        wait_for("it to wait", lambda: "waiting: Approval" in capsys.readouterr().err, 60)
    waiting.join(60)
    assert ended == [Exit.OK]


def test_somebody_who_may_see_little_gets_no_false_alarm(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("check", "-o", "json", user=DEV) is Exit.OK
    told = findings(capsys)
    assert told["Operator"][0] == "Unknown"
    assert "forbidden" in told["Operator"][1]
    assert cli("check", "-o", "json", user="stranger@example.com") is Exit.NOT_READY
    assert findings(capsys)["Permission"][0] == "Broken"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"user": {"token": "wrong"}}, "does not accept the credentials of the kubeconfig"),
        ({"cluster": {"certificate-authority": ""}}, "is not trusted"),
        ({"cluster": {"server": "https://127.0.0.1:9"}}, "nothing listens at https://127.0.0.1:9"),
        (
            {"cluster": {"server": "https://no-such-host.invalid"}},
            "the name of https://no-such-host.invalid is unknown",
        ),
    ],
    ids=["wrong token", "wrong authority", "nobody there", "no such host"],
)
def test_a_cluster_that_cannot_be_used_is_told_in_a_sentence(
    plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Object, sentence: str
) -> None:
    config = json.loads(plane.kubeconfig.read_text())
    for part, fields in change.items():
        config[f"{part}s"][0][part] |= fields
    path = tmp_path / "config"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    assert run(["get", "--kubeconfig", str(path)]) is Exit.ERROR
    assert sentence in capsys.readouterr().err
    assert run(["check", "--kubeconfig", str(path)]) is Exit.NOT_READY
    assert sentence in " ".join(capsys.readouterr().out.split())


# --- get and why ------------------------------------------------------------------------------


@pytest.mark.usefixtures("chain")
def test_the_chain_is_read_from_the_apiserver(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("get", "guide", "-o", "json") is Exit.OK
    chain = json.loads(capsys.readouterr().out)
    assert chain["state"] == "Progressing"
    assert [one["version"]["name"] for one in chain["lineages"]] == ["guide-v1", "guide-v2"]
    assert chain["services"][0]["candidate"]["steps"] == [10, 20, 50]
    assert chain["services"][0]["rules"]["intervalSeconds"] == 60
    assert cli("get") is Exit.OK
    told = capsys.readouterr().out
    assert "tis/guide" in told
    assert "guide-v1 80% · guide-v2 20% · Progressing" in told
    assert cli("get", "guide-v7") is Exit.ERROR
    assert "there is no FineTuneJob, ModelVersion or InferenceService guide-v7" in capsys.readouterr().err


@pytest.mark.usefixtures("chain")
def test_everybody_sees_what_they_may_list(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("get", user=OLIVIA) is Exit.OK
    assert "guide-v2" in (told := capsys.readouterr().out)
    assert "tis/guide" not in told
    assert cli("get", "guide-v2", user=OLIVIA) is Exit.OK
    assert cli("get", user="stranger@example.com") is Exit.REFUSED
    assert "cannot list resource" in (sentence := capsys.readouterr().err)
    assert sentence.endswith("ask for the role tunewright-view, or look elsewhere with -n NAMESPACE\n")


@pytest.mark.usefixtures("chain")
def test_a_watch_shows_what_changes(plane: ControlPlane) -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'cli'}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tunewright_cli", "get", "guide", "-w", "-n", make.NAMESPACE]
    command += ["--kubeconfig", str(plane.kubeconfig)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            read_until(process, "guide-v2 gets 20 percent")
            create(plane, make.service(status=make.rolled_back()))
            assert "! Degraded" in read_until(process, "TTFTP95 of guide-v2 was 812 ms")
        finally:
            process.kill()


def read_until(process: subprocess.Popen[bytes], wanted: str, seconds: float = 30) -> str:
    """What the process prints up to and with `wanted`."""
    assert process.stdout
    text, deadline = b"", time.monotonic() + seconds
    while wanted.encode() not in text:
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        more = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not more:
            process.kill()
            raise AssertionError(f"no {wanted!r} in: {text.decode()}")
        text += more
    return text.decode()


@pytest.mark.usefixtures("chain")
def test_why_names_the_crash_with_its_event(plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    name = "guide-c0ffee12-x"
    path = f"/api/v1/namespaces/{make.NAMESPACE}/pods"
    pod = make.pod(name, revision=make.CANDIDATE)
    plane.api.create(f"/api/v1/namespaces/{make.NAMESPACE}/serviceaccounts", _named("v1", "ServiceAccount", "default"))
    plane.api.create(path, {**pod, "metadata": {"name": name, "labels": pod["metadata"]["labels"]}})
    plane.api.merge(f"{path}/{name}/status", {"status": make.crashing("vLLM refuses 100000")})
    event = {
        **_named("v1", "Event", "crash"),
        "involvedObject": {"kind": "Pod", "name": name, "namespace": make.NAMESPACE},
        "reason": "BackOff",
        "message": "Back-off restarting failed container",
        "type": "Warning",
        "lastTimestamp": "2099-01-01T00:00:00Z",  # newer than what the cluster itself says of the pod
    }
    plane.api.create(f"/api/v1/namespaces/{make.NAMESPACE}/events", event)
    approve(plane, "guide-v2")
    assert cli("why", "guide") is Exit.NOT_READY
    told = capsys.readouterr().out
    assert f"✗ its pods stay up: pod {name}: CrashLoopBackOff: vLLM refuses 100000" in told
    assert "BackOff Back-off restarting failed container" in " ".join(told.split())  # wherever the line breaks
    assert "(the log cannot be read:" in told
    plane.api.delete(f"{path}/{name}?gracePeriodSeconds=0")
    assert cli("why", "guide-v1") is Exit.OK


# --- decisions --------------------------------------------------------------------------------


def approve(plane: ControlPlane, version: str) -> None:
    """As olivia."""
    assert cli_of(plane)("approve", version, "--yes", user=OLIVIA) is Exit.OK


def approval(plane: ControlPlane, version: str) -> Object | None:
    """spec.approval as it is stored."""
    found: Object | None = plane.api.get(f"{TEAM}/modelversions/{version}")["spec"].get("approval")
    return found


@pytest.mark.usefixtures("chain")
def test_a_decision_is_written_under_the_own_name_for_the_digest_that_was_shown(
    plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli("approve", "guide-v2", "--reason", "better", user=OLIVIA) is Exit.OK
    told = capsys.readouterr().out
    assert f"Approve guide-v2 ({make.DIGESTS['v2']}) as {OLIVIA}? [y/N]" in told
    decided = {"approvedBy": OLIVIA, "digest": make.DIGESTS["v2"]}
    assert approval(plane, "guide-v2") == {**decided, "decision": "Approved", "reason": "better"}
    assert cli("reject", "guide-v2", "--reason", "answers in German", "--yes", user=OLIVIA) is Exit.OK
    assert approval(plane, "guide-v2") == {**decided, "decision": "Rejected", "reason": "answers in German"}
    assert cli("approve", "guide-v2", "--yes", user=OLIVIA) is Exit.OK
    assert approval(plane, "guide-v2") == {**decided, "decision": "Approved"}


@pytest.mark.usefixtures("chain")
def test_no_is_no(plane: ControlPlane, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert cli("approve", "guide-v2", user=OLIVIA) is Exit.REFUSED
    assert approval(plane, "guide-v2") is None


@pytest.mark.usefixtures("chain")
def test_who_may_not_decide_is_refused_and_told_who_may(
    plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("approve", "guide-v2", "--yes", user=DEV) is Exit.REFUSED
    told = capsys.readouterr().err
    assert "user dev@example.com may not write spec.approval: it needs the verb approve on modelversions" in told
    assert "Ask who has the verb approve on modelversions.tunewright.io in namespace team" in told
    assert cli("approve", "guide-v2", "--yes", user=AUDITOR) is Exit.REFUSED
    assert f"Who may: {OLIVIA}" in capsys.readouterr().err
    assert approval(plane, "guide-v2") is None
    assert cli("approve", "guide-v2", "--yes", "--as", OLIVIA) is Exit.OK


# --- requests ---------------------------------------------------------------------------------


@contextmanager
def answering(plane: ControlPlane, outcome: str, message: str) -> Iterator[list[str]]:
    """An operator that answers the first request that it sees; yields the requests."""
    seen: list[str] = []

    def answer() -> None:
        path = f"{TEAM}/inferenceservices/guide"

        def asked() -> str:
            annotations = plane.api.get(path)["metadata"].get("annotations") or {}
            return str(annotations.get("tunewright.io/request", ""))

        request = wait_for("a request", asked, 30, interval=0.05)
        seen.append(request)
        handled = {"request": request, "outcome": outcome, "message": message, "time": make.NOW}
        plane.api.merge(f"{path}/status", {"status": {"lastHandledRequest": handled}})

    thread = threading.Thread(target=answer)
    thread.start()
    yield seen
    thread.join(30)


@pytest.mark.usefixtures("chain")
def test_a_request_is_written_and_its_answer_is_awaited(
    plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(plane, "Done", "paused at 20 percent") as seen:
        assert cli("pause", "guide", user=DEV) is Exit.OK
    assert capsys.readouterr().out == "guide: paused at 20 percent\n"
    verb, _, rest = seen[0].partition("@")
    assert (verb, rest.partition("/")[0]) == ("pause", make.CANDIDATE)


@pytest.mark.usefixtures("chain")
def test_a_refused_request_is_exit_code_3(plane: ControlPlane, cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(plane, "Refused", "the newest check failed"):
        assert cli("promote", "guide") is Exit.REFUSED
    assert "promote was refused: the newest check failed" in capsys.readouterr().err


@pytest.mark.usefixtures("chain")
def test_an_operator_that_does_not_answer_is_exit_code_2(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("abort", "guide", "--timeout", "0.5") is Exit.NOT_READY
    assert "the operator has not answered within 0.5 s: look at it with tunewright check" in capsys.readouterr().err
    assert cli("abort", "guide", "--no-wait") is Exit.OK
    assert capsys.readouterr().out.startswith(f"asked for: abort@{make.CANDIDATE}/")


@pytest.mark.usefixtures("chain")
def test_who_may_not_edit_may_not_steer(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("promote", "guide", user=OLIVIA) is Exit.REFUSED
    assert "forbidden" in capsys.readouterr().err
    assert cli("retry", "guide") is Exit.REFUSED
    assert cli("pause", "nothing") is Exit.ERROR


@pytest.mark.usefixtures("chain")
def test_asking_without_a_ready_pod_is_not_ready(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("ask", "guide", "What?") is Exit.NOT_READY
    told = capsys.readouterr().err
    assert f"no pod of revision {make.STABLE} of guide is ready: tunewright why guide -n team" in told


# --- a real node ------------------------------------------------------------------------------


@pytest.mark.node
def test_a_port_of_a_real_pod_is_reached_through_the_apiserver(cluster: LocalCluster) -> None:
    name = f"cli-{os.getpid()}"
    api = Api(load_config(Choice(str(cluster.plane.kubeconfig))))
    container = {"name": "web", "image": PROBE_IMAGE, "imagePullPolicy": "Never", "args": ["serve", "hello"]}
    pod = _named("v1", "Pod", "web") | {"spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}
    cluster.plane.kubectl("create", "namespace", name)
    try:
        cluster.plane.kubectl("create", "-n", name, "-f", "-", stdin=json.dumps(pod))
        cluster.plane.kubectl("wait", "-n", name, "--for=condition=Ready", "pod/web", "--timeout=60s")
        connection = ForwardedConnection(PortForward(api, name, "web", 8080), 30)
        assert [_get(connection) for _ in range(3)] == [(200, b"hello\n")] * 3
        closed = ForwardedConnection(PortForward(api, name, "web", 81), 30)
        with pytest.raises(ConnectionError, match="refused"):
            _get(closed)
    finally:
        cluster.plane.kubectl("delete", "namespace", name, "--wait=false")


def _get(connection: ForwardedConnection) -> tuple[int, bytes]:
    connection.request("GET", "/")
    answer = connection.getresponse()
    return answer.status, answer.read()
