"""Which cluster, as whom: kubeconfigs as kubectl reads them."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewright_cli.cluster import kubeconfig
from tunewright_cli.cluster.credentials import CredentialError, Credentials, parse_exec_credential
from tunewright_cli.cluster.kubeconfig import Choice, ClusterConfig, ConfigError, User, load_config
from tunewright_cli.exits import CliError

Write = Callable[..., Path]


def document(server: str = "https://one:6443", user: dict[str, Any] | None = None, name: str = "one") -> dict[str, Any]:
    """A kubeconfig with one of each."""
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": user or {"token": f"token-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"space-{name}"}}],
        "current-context": name,
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a kubeconfig as YAML; returns its path."""

    def file(content: Any, name: str = "config") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return file


def test_the_current_context_says_where_and_as_whom(write: Write) -> None:
    config = load_config(Choice(str(write(document()))), {})
    assert (config.server, config.namespace, config.context) == ("https://one:6443", "space-one", "one")
    assert Credentials(config).headers() == {"Authorization": "Bearer token-one"}


def test_json_is_read_like_yaml(write: Write) -> None:
    assert load_config(Choice(str(write(json.dumps(document())))), {}).server == "https://one:6443"


def test_options_win_over_the_file(write: Write) -> None:
    both = document() | {"contexts": document()["contexts"] + document(name="two")["contexts"]}
    both["clusters"] += document("https://two:6443", name="two")["clusters"]
    both["users"] += document(name="two")["users"]
    config = load_config(Choice(str(write(both)), "two", "mine", "olivia"), {})
    assert (config.server, config.namespace) == ("https://two:6443", "mine")
    assert Credentials(config).headers() == {"Authorization": "Bearer token-two", "Impersonate-User": "olivia"}


def test_several_files_are_merged_and_the_first_wins(write: Write) -> None:
    first, second = write(document("https://first:6443"), "a"), write(document("https://second:6443"), "b")
    third = write(document("https://third:6443", name="three"), "c")
    env = {"KUBECONFIG": f"{first}:{second}:{third}:/does/not/exist"}
    assert load_config(Choice(), env).server == "https://first:6443"
    assert load_config(Choice(context="three"), env).server == "https://third:6443"


def test_paths_are_relative_to_their_file(write: Write, tmp_path: Path) -> None:
    for name, text in (("ca.crt", "CA"), ("me.crt", "CERT"), ("me.key", "KEY"), ("me.token", "secret\n")):
        (tmp_path / name).write_text(text)
    files = document(user={"client-certificate": "me.crt", "client-key": "me.key", "tokenFile": "me.token"})
    files["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    config = load_config(Choice(str(write(files))), {})
    assert config.ca == b"CA"
    assert Credentials(config).certificate() == (b"CERT", b"KEY")
    assert Credentials(config).headers() == {"Authorization": "Bearer secret"}


def test_inline_data_wins_over_files(write: Write) -> None:
    inline = {f"client-{part}-data": base64.b64encode(part.encode()).decode() for part in ("certificate", "key")}
    inline["client-certificate"] = "/does/not/exist"
    config = load_config(Choice(str(write(document(user=inline)))), {})
    assert Credentials(config).certificate() == (b"certificate", b"key")


def test_in_a_pod_its_own_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "pod-token"), ("ca.crt", "CA"), ("namespace", "mine")):
        (tmp_path / name).write_text(text)
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    config = kubeconfig._in_cluster(Choice(), env, tmp_path)
    assert config is not None
    assert (config.server, config.namespace, config.ca) == ("https://[fd00::1]:443", "mine", b"CA")
    assert Credentials(config).headers() == {"Authorization": "Bearer pod-token"}


def plugin(tmp_path: Path, body: str) -> dict[str, Any]:
    """An exec plugin that runs this Python."""
    script = tmp_path / "plugin.py"
    script.write_text(body)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
        "env": [{"name": "REALM", "value": "models"}],
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }


def test_an_exec_plugin_is_asked_once_until_its_token_ends(tmp_path: Path) -> None:
    body = (
        "import json, os, pathlib\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count.write_text(count.read_text() + 'x' if count.exists() else 'x')\n"
        "token = '-'.join([os.environ['REALM'], asked['spec']['cluster']['server'], count.read_text()])\n"
        "print(json.dumps({'status': {'token': token, 'expirationTimestamp': EXPIRES}}))"
    )
    lasting = Credentials(_with(plugin(tmp_path, body.replace("EXPIRES", "'2999-01-01T00:00:00Z'"))))
    assert {lasting.headers()["Authorization"] for _ in range(3)} == {"Bearer models-https://one:6443-x"}
    ended = Credentials(_with(plugin(tmp_path, body.replace("EXPIRES", "'2001-01-01T00:00:00Z'"))))
    assert [ended.headers()["Authorization"][-3:] for _ in range(2)] == ["-xx", "xxx"]


def _with(entry: dict[str, Any]) -> ClusterConfig:
    return ClusterConfig(server="https://one:6443", user=User(exec=entry))


def test_an_exec_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    body = 'print(\'{"status": {"clientCertificateData": "C", "clientKeyData": "K"}}\')'
    given = Credentials(_with(plugin(tmp_path, body)))
    assert (given.certificate(), given.headers()) == ((b"C", b"K"), {})


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"command": "no-such-plugin", "installHint": "brew install it"},
            "the exec plugin no-such-plugin is not on the PATH: brew install it",
        ),
        ({"command": "false"}, "the exec plugin false ended with 1: log in again, or run it by hand"),
        ({"command": "true"}, "the exec plugin true printed no ExecCredential: run it by hand"),
        ({"command": "x", "apiVersion": "v0"}, "the exec plugin x speaks v0: write client.authentication.k8s.io/v1"),
    ],
)
def test_a_plugin_that_does_not_work_gets_a_sentence(entry: dict[str, Any], sentence: str) -> None:
    whole = {"apiVersion": "client.authentication.k8s.io/v1"} | entry
    with pytest.raises(CredentialError) as error:
        Credentials(_with(whole)).headers()
    assert str(error.value) == sentence


def test_an_answer_of_a_plugin_is_read() -> None:
    given = parse_exec_credential('{"status": {"token": "t", "expirationTimestamp": "2026-11-22T15:00:00Z"}}', "p")
    assert (given.token, given.expires and given.expires.isoformat()) == ("t", "2026-11-22T15:00:00+00:00")


@pytest.mark.parametrize(
    ("content", "choice", "sentence"),
    [
        (document() | {"current-context": ""}, {}, "has no current context: give --context one of its contexts (one)"),
        (document(), {"context": "two"}, "--context names context 'two', and there is one: correct it"),
        (document() | {"clusters": []}, {}, "context 'one' names cluster 'one', and there is none: correct it"),
        (document(""), {}, "has no server: add its address"),
        (document(user={"auth-provider": {"name": "gcp"}}), {}, "has an auth-provider, which Kubernetes has removed"),
        (document(user={"client-certificate-data": "&"}), {}, "client-certificate-data of the kubeconfig is no base64"),
        (document(user={"client-certificate": "/no/file"}), {}, "client-certificate /no/file cannot be read"),
        ("", {}, "is no kubeconfig, it is empty: write one"),
        ("{", {}, "is no kubeconfig ("),
        ("a: [", {}, "is no kubeconfig ("),
        (document("cluster.example"), {}, "has no scheme: write https:// before it"),
        (document() | {"clusters": "foo"}, {}, "its clusters are no list of named entries: correct it"),
        (document() | {"users": [{"user": {}}]}, {}, "its users are no list of named entries: correct it"),
    ],
    ids=[
        "no current context",
        "unknown context",
        "unknown cluster",
        "no server",
        "auth-provider",
        "no base64",
        "no file",
        "empty",
        "broken JSON",
        "broken YAML",
        "a server without a scheme",
        "clusters that are a word",
        "a user without a name",
    ],
)
def test_a_wrong_kubeconfig_gets_a_sentence(write: Write, content: Any, choice: dict[str, str], sentence: str) -> None:
    with pytest.raises(CliError) as error:
        load_config(Choice(str(write(content)), **choice), {})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_without_any_kubeconfig_it_is_said_where_one_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no cluster is configured, .*/\.kube/config does not exist: set KUBECONFIG"):
        load_config(Choice(), {"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="--kubeconfig"):
        load_config(Choice("/no/such/file"), {})
