"""Which cluster, as whom: kubeconfig files as kubectl reads them, or the ServiceAccount of the pod we run in.

Several files of KUBECONFIG are merged: the first one that names a cluster, a user, a context or a current context wins.
Paths inside a file are relative to that file.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright_cli.exits import CliError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE = "default"


class ConfigError(CliError):
    """No cluster can be found; the message says where it was looked for, and what to do."""


@dataclass(frozen=True)
class User:
    """How to prove who one is; at most one kind of token is used, in the order of the fields."""

    token: str = ""
    token_file: Path | None = None
    exec: Mapping[str, Any] | None = None
    certificate: bytes = b""
    key: bytes = b""
    impersonate: str = ""
    impersonate_groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterConfig:
    """One cluster and one user of it."""

    server: str
    namespace: str = DEFAULT_NAMESPACE
    context: str = ""
    source: str = ""
    ca: bytes = b""
    verify: bool = True
    server_name: str = ""
    proxy: str = ""
    user: User = field(default_factory=User)
    # The cluster's entry as written, for exec plugins that ask for it.
    entry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What the command line says; empty where it says nothing."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    impersonate: str = ""


def load_config(choice: Choice, env: Mapping[str, str] = os.environ) -> ClusterConfig:
    """Read the files; raises ConfigError."""
    paths = _paths(choice, env)
    files = [path for path in paths if path.is_file()]
    if choice.kubeconfig and not files:
        raise ConfigError(f"{choice.kubeconfig} does not exist: give --kubeconfig the path of a kubeconfig file")
    if not files and not choice.context and (config := _in_cluster(choice, env)):
        return config
    if not files:
        looked = " and ".join(map(str, paths))
        raise ConfigError(f"no cluster is configured, {looked} does not exist: set KUBECONFIG or give --kubeconfig")
    return _select(_merge(files), choice, ", ".join(map(str, files)))


def _paths(choice: Choice, env: Mapping[str, str]) -> list[Path]:
    if choice.kubeconfig:
        return [Path(choice.kubeconfig).expanduser()]
    if listed := [Path(part) for part in env.get("KUBECONFIG", "").split(os.pathsep) if part]:
        return listed
    return [Path(env.get("HOME") or Path.home()) / ".kube" / "config"]


def _in_cluster(choice: Choice, env: Mapping[str, str], mounted: Path = SERVICE_ACCOUNT) -> ClusterConfig | None:
    """The apiserver of the cluster whose pod this is, or None outside of a cluster."""
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (mounted / "token").is_file():
        return None
    own = (mounted / "namespace").read_text().strip() if (mounted / "namespace").is_file() else DEFAULT_NAMESPACE
    return ClusterConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=choice.namespace or own,
        source=str(mounted),
        ca=(mounted / "ca.crt").read_bytes(),
        user=User(token_file=mounted / "token", impersonate=choice.impersonate),
    )


@dataclass
class _Merged:
    """Entries by section and name, each with the directory that its paths are relative to."""

    current: str = ""
    entries: dict[str, dict[str, tuple[Mapping[str, Any], Path]]] = field(
        default_factory=lambda: {"clusters": {}, "users": {}, "contexts": {}}
    )

    def find(self, section: str, name: str, wanted_by: str) -> tuple[Mapping[str, Any], Path]:
        try:
            return self.entries[section][name]
        except KeyError:
            known = ", ".join(sorted(self.entries[section])) or "none"
            raise ConfigError(f"{wanted_by} names {section[:-1]} {name!r}, and there is {known}: correct it") from None


def _merge(files: list[Path]) -> _Merged:
    merged = _Merged()
    for path in files:
        document = _read(path)
        merged.current = merged.current or str(document.get("current-context") or "")
        for section, entries in merged.entries.items():
            for entry in _entries(document, section, path):
                entries.setdefault(str(entry["name"]), (entry.get(section[:-1]) or {}, path.absolute().parent))
    return merged


def _entries(document: Mapping[str, Any], section: str, path: Path) -> list[Mapping[str, Any]]:
    found = document.get(section) or []
    good = isinstance(found, list) and all(isinstance(one, dict) and "name" in one for one in found)
    if not good or not all(isinstance(one.get(section[:-1]) or {}, dict) for one in found):
        raise ConfigError(f"{path} is no kubeconfig, its {section} are no list of named entries: correct it")
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): correct its permissions") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no kubeconfig, it is not text: set KUBECONFIG to another file") from None
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else _parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path} is no kubeconfig ({str(error).splitlines()[0]}): correct it") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no kubeconfig, it is empty: write one, or set KUBECONFIG to another file")
    return document


def _parse_yaml(text: str) -> Any:
    # A kubeconfig in JSON, as tools write it, spares the import.
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _select(merged: _Merged, choice: Choice, source: str) -> ClusterConfig:
    name = choice.context or merged.current
    if not name:
        known = ", ".join(sorted(merged.entries["contexts"])) or "none"
        raise ConfigError(f"{source} has no current context: give --context one of its contexts ({known})")
    context, _ = merged.find("contexts", name, "--context" if choice.context else f"{source}: current-context")
    cluster, home = merged.find("clusters", str(context.get("cluster", "")), f"context {name!r}")
    user, user_home = (
        merged.find("users", str(context["user"]), f"context {name!r}") if context.get("user") else ({}, home)
    )
    if not cluster.get("server"):
        raise ConfigError(f"cluster {context.get('cluster')!r} of {source} has no server: add its address")
    if not str(cluster["server"]).startswith(("https://", "http://")):
        raise ConfigError(f"the server {cluster['server']!r} of {source} has no scheme: write https:// before it")
    return ClusterConfig(
        server=str(cluster["server"]).rstrip("/"),
        namespace=choice.namespace or str(context.get("namespace") or DEFAULT_NAMESPACE),
        context=name,
        source=source,
        ca=_content(cluster, "certificate-authority", home),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        server_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster.get("proxy-url") or ""),
        user=_user(user, user_home, name, choice),
        entry=cluster,
    )


def _user(entry: Mapping[str, Any], home: Path, context: str, choice: Choice) -> User:
    if "auth-provider" in entry:
        raise ConfigError(
            f"the user of context {context!r} has an auth-provider, which Kubernetes has removed: use an exec plugin"
        )
    return User(
        token=str(entry.get("token") or ""),
        token_file=home / entry["tokenFile"] if entry.get("tokenFile") else None,
        exec=entry.get("exec"),
        certificate=_content(entry, "client-certificate", home),
        key=_content(entry, "client-key", home),
        impersonate=choice.impersonate or str(entry.get("as") or ""),
        impersonate_groups=() if choice.impersonate else tuple(entry.get("as-groups") or ()),
    )


def _content(entry: Mapping[str, Any], key: str, home: Path) -> bytes:
    """PEM of `KEY-data` (base64) or of the file `KEY`; empty without either."""
    if inline := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, TypeError):
            raise ConfigError(f"{key}-data of the kubeconfig is no base64: write it again") from None
    if not (name := entry.get(key)):
        return b""
    path = home / str(name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key} {path} cannot be read ({error.strerror}): correct the kubeconfig") from None
