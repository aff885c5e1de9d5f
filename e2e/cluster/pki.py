"""Certificates, tokens and kubeconfigs, made with the openssl command.

Components identify themselves with static tokens; only what must speak TLS or is asked for while the apiserver runs
(a kubeconfig for some user) gets a certificate.
"""

from __future__ import annotations

import csv
import json
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.errors import ClusterError

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS = "365"


@dataclass(frozen=True)
class Identity:
    """A user of the API with a static token."""

    user: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16))


def authority_command(directory: Path) -> list[str]:
    """The openssl command that makes the certificate authority."""
    subject = ("-subj", "/CN=tunewright-throw-away-ca")
    out = ("-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.crt"))
    extensions = ("-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    return ["openssl", "req", "-x509", *_CURVE, "-days", _DAYS, *subject, *extensions, *out]


def certificate_command(directory: Path, name: str, subject: str, names: Sequence[str] = ()) -> list[str]:
    """The openssl command for a certificate of the authority, for servers (with `names`) or clients.

    `subject` is in openssl's form (`/O=group/CN=user`), each of `names` is like `DNS:localhost` or `IP:127.0.0.1`.
    """
    signer = ("-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key"))
    out = ("-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt"))
    usage = "serverAuth,clientAuth" if names else "clientAuth"
    extensions = ["-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE"]
    if names:
        extensions += ["-addext", f"subjectAltName={','.join(names)}"]
    return ["openssl", "req", "-x509", *signer, *_CURVE, "-days", _DAYS, "-subj", subject, *extensions, *out]


def user_subject(user: str, groups: Sequence[str]) -> str:
    """The certificate subject by which the apiserver knows a user and their groups."""
    parts = [*(("O", group) for group in groups), ("CN", user)]
    return "".join(f"/{key}={value.replace('/', chr(92) + '/')}" for key, value in parts)


def token_lines(identities: Sequence[Identity]) -> list[list[str]]:
    """The rows of the apiserver's `--token-auth-file`."""
    return [[one.token, one.user, one.user, ",".join(one.groups)] for one in identities]


def kubeconfig(server: str, ca: Path, credentials: dict[str, str]) -> dict[str, object]:
    """A kubeconfig with one context; `credentials` is its user entry (a token, or certificate and key)."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tunewright", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "user", "user": credentials}],
        "contexts": [{"name": "tunewright", "context": {"cluster": "tunewright", "user": "user"}}],
        "current-context": "tunewright",
    }


class Authority:
    """The certificate authority in `directory`; what is already there is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca.crt"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.ca.exists():
            _openssl(authority_command(directory))

    def certificate(self, name: str, subject: str, names: Sequence[str] = ()) -> tuple[Path, Path]:
        """Make a certificate and its key, unless they are there; return both paths."""
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if not cert.exists():
            _openssl(certificate_command(self.directory, name, subject, names))
        return cert, key

    def signing_key(self, name: str) -> tuple[Path, Path]:
        """Make a private key (for service-account tokens) and its public half; return both paths."""
        private, public = self.directory / f"{name}.key", self.directory / f"{name}.pub"
        if not public.exists():
            _openssl(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)])
            _openssl(["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)])
        return private, public

    def write_tokens(self, identities: Sequence[Identity]) -> Path:
        """Write the apiserver's token file."""
        path = self.directory / "tokens.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(token_lines(identities))
        path.chmod(0o600)
        return path


def write_kubeconfig(path: Path, config: dict[str, object]) -> Path:
    """Write a kubeconfig (JSON is YAML) that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
    return path


def _openssl(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterError("openssl was not found: install the package that provides it.") from None
    if done.returncode:
        message = f"`{' '.join(command)}` failed; OpenSSL 3 or newer is needed. It said: {done.stderr.strip()}"
        raise ClusterError(message)
