"""What proves who we are: a token or a certificate, if need be from an exec plugin (ExecCredential)."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewright_cli.cluster.kubeconfig import ClusterConfig, User
from tunewright_cli.exits import CliError

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_PLUGIN_SECONDS = 120


class CredentialError(CliError):
    """The plugin or the token file gives no credentials."""


@dataclass(frozen=True)
class Credential:
    """A token, or a client certificate with its key (PEM), and until when it holds."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None


class Credentials:
    """The credentials of one user, asked for when they are needed and kept until they end."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._plugin: Credential | None = None

    def headers(self) -> dict[str, str]:
        """Headers of a request."""
        user = self._config.user
        token = self._token(user)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if user.impersonate:
            headers["Impersonate-User"] = user.impersonate
        return headers

    def certificate(self) -> tuple[bytes, bytes] | None:
        """Client certificate and key, or None."""
        user = self._config.user
        if user.certificate and user.key:
            return user.certificate, user.key
        if user.exec and not user.token and not user.token_file:
            given = self._from_plugin(user.exec)
            if given.certificate and given.key:
                return given.certificate, given.key
        return None

    def _token(self, user: User) -> str:
        if user.token:
            return user.token
        if user.token_file:
            try:  # read each time: the kubelet replaces it
                return user.token_file.read_text().strip()
            except OSError as error:
                raise CredentialError(
                    f"the token file {user.token_file} cannot be read ({error.strerror}): correct the kubeconfig"
                ) from None
        return self._from_plugin(user.exec).token if user.exec else ""

    def _from_plugin(self, entry: Mapping[str, Any]) -> Credential:
        with self._lock:
            held = self._plugin
            if held is None or (held.expires and held.expires <= datetime.now(UTC) + timedelta(seconds=10)):
                self._plugin = held = parse_exec_credential(run_plugin(entry, self._config), str(entry["command"]))
            return held


def run_plugin(entry: Mapping[str, Any], config: ClusterConfig) -> str:
    """Run an exec plugin; returns what it printed. Raises CredentialError."""
    import subprocess

    command = str(entry.get("command") or "")
    version = str(entry.get("apiVersion") or "")
    if version not in _VERSIONS:
        raise CredentialError(f"the exec plugin {command} speaks {version or 'no version'}: write {_VERSIONS[0]}")
    arguments = [command, *map(str, entry.get("args") or ())]
    env = os.environ | {str(one["name"]): str(one["value"]) for one in entry.get("env") or ()}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(_exec_info(entry, config, version))
    try:
        done = subprocess.run(arguments, env=env, stdout=subprocess.PIPE, check=False, timeout=_PLUGIN_SECONDS)
    except FileNotFoundError:
        hint = str(entry.get("installHint") or "install it, or correct the kubeconfig").strip()
        raise CredentialError(f"the exec plugin {command} is not on the PATH: {hint}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialError(f"the exec plugin {command} does not work ({error}): run it by hand") from None
    if done.returncode:
        raise CredentialError(
            f"the exec plugin {command} ended with {done.returncode}: log in again, or run it by hand"
        )
    return done.stdout.decode()


def _exec_info(entry: Mapping[str, Any], config: ClusterConfig, version: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": entry.get("interactiveMode") != "Never" and os.isatty(0)}
    if entry.get("provideClusterInfo"):
        spec["cluster"] = {"server": config.server, "insecure-skip-tls-verify": not config.verify}
        if data := config.entry.get("certificate-authority-data"):
            spec["cluster"]["certificate-authority-data"] = data
    return {"apiVersion": version, "kind": "ExecCredential", "spec": spec}


def parse_exec_credential(text: str, command: str) -> Credential:
    """What a plugin printed; raises CredentialError."""
    try:
        status = json.loads(text)["status"]
        expires = status.get("expirationTimestamp")
        return Credential(
            token=status.get("token") or "",
            certificate=(status.get("clientCertificateData") or "").encode(),
            key=(status.get("clientKeyData") or "").encode(),
            expires=datetime.fromisoformat(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CredentialError(f"the exec plugin {command} printed no ExecCredential: run it by hand") from None
