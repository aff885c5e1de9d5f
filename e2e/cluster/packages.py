"""The Debian packages that the cluster needs, found by the programs in them, or by another file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.lock import locked
from e2e.cluster.paths import cache_root

CNI_PLUGINS = Path("/usr/lib/cni")

# program -> Debian package
APISERVER_TIER = {"etcd": "etcd-server", "openssl": "openssl"}
NODE_TIER = {
    **APISERVER_TIER,
    "containerd": "containerd",
    "runc": "runc",
    f"{CNI_PLUGINS}/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
}


def missing_packages(programs: dict[str, str]) -> list[str]:
    """The packages whose programs this machine lacks, each once."""
    # Debian keeps administrators' programs out of an ordinary user's PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    absent = (
        package
        for program, package in programs.items()
        if not shutil.which(program, path=path) and not Path(program).is_file()
    )
    return list(dict.fromkeys(absent))


def is_debian(os_release: Path = Path("/etc/os-release")) -> bool:
    """Whether this is Debian or one of its children, such as Ubuntu."""
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return False
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    family = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".replace('"', "").split()
    return "debian" in family


def install_commands(packages: Iterable[str]) -> list[list[str]]:
    """The commands that install packages."""
    return [
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ]


def ensure_packages(programs: dict[str, str], report: Callable[[str], None]) -> None:
    """Install what is missing as root on Debian; elsewhere name it, before anything was started."""
    packages = missing_packages(programs)
    if not packages:
        return
    if not (is_debian() and os.geteuid() == 0):
        raise ClusterError(
            f"These packages are missing: {' '.join(packages)}. Install them (the names are Debian's; as root on "
            "Debian this command does it itself) and run this again."
        )
    with locked(cache_root() / "packages.lock"):
        # Images and cluster are made side by side: the other one may have installed the same meanwhile.
        if packages := missing_packages(programs):
            report(f"installing Debian packages: {' '.join(packages)}")
            _install(packages)


def _install(packages: Iterable[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_services():
        for command in install_commands(packages):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ClusterError(f"`{' '.join(command)}` failed; run it by hand to see why: {done.stderr.strip()}")


@contextlib.contextmanager
def no_services(policy: Path = Path("/usr/sbin/policy-rc.d")) -> Iterator[None]:
    """Keep packages from starting services of their own, as Debian documents it: a policy that answers 101."""
    if policy.exists():  # containers have one already
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
