"""Building the cluster's programs from Go modules, once, into the cache.

`gomod/kubernetes` pins the Kubernetes components, `gomod/tools` the programs beside them, `gomod/istio` Istio's control
plane, its analyser, and the CRDs of Istio and of the Gateway API, which are files of Go modules, `gomod/prometheus`
Prometheus and promtool: Debian's cannot find pods. The results of each module land in `CACHE/bin/MODULE-KEY/`, where
KEY is a digest of everything that decides what they are: go.mod, go.sum, our own Go files, tags and the linker's flags.
Go's build and module caches live in `CACHE/go` and are removed once everything is built: ten gigabytes that nobody
reads again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.lock import locked
from e2e.cluster.paths import cache_root

KUBERNETES_VERSION = "v1.34.4"
SOURCES = Path(__file__).parent / "gomod"

# The linker drops symbols and DWARF, since nobody debugs these binaries; so the compiler need not make any. That and a
# lazier garbage collector in the compiler save a sixth of the CPU time (measured on net/http and what it imports).
# Neither decides what a program does, so neither is in the key.
_STRIP = "-s -w"
_NO_DWARF = "-gcflags=all=-dwarf=false"
_LAZY_COLLECTOR = {"GOGC": "400"}


@dataclass(frozen=True)
class Module:
    """One go.mod of ours; `ldflags` are added to every binary that is linked from it, `tags` choose what goes in."""

    name: str
    ldflags: str = _STRIP
    tags: str = ""


@dataclass(frozen=True)
class Target:
    """A program: its name, the module that pins it and its main package.

    With `files`, not a program but the concatenation of these YAML files of the Go module `package`.
    """

    name: str
    module: Module
    package: str
    files: str = ""


def version_flags(version: str) -> str:
    """Linker flags that make a Kubernetes binary know its version; without them it calls itself v0.0.0."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())


KUBERNETES = Module("kubernetes", f"{_STRIP} {version_flags(KUBERNETES_VERSION)}")
TOOLS = Module("tools")
ISTIO = Module("istio")
# Of two dozen ways to find what to scrape, the clouds' among them, only that of Kubernetes.
PROMETHEUS = Module("prometheus", tags="remove_all_sd,enable_kubernetes_sd")
MODULES = (KUBERNETES, TOOLS, ISTIO, PROMETHEUS)

# In the order in which they are needed: the apiserver first, and what tests alone use last.
TARGETS = (
    Target("kube-apiserver", KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver"),
    Target("kube-controller-manager", KUBERNETES, "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Target("kube-scheduler", KUBERNETES, "k8s.io/kubernetes/cmd/kube-scheduler"),
    Target("kubelet", KUBERNETES, "k8s.io/kubernetes/cmd/kubelet"),
    Target("kube-proxy", KUBERNETES, "k8s.io/kubernetes/cmd/kube-proxy"),
    Target("kubectl", KUBERNETES, "k8s.io/kubernetes/cmd/kubectl"),
    Target("pause", TOOLS, "./pause"),
    Target("probe", TOOLS, "./probe"),
    Target("coredns", TOOLS, "./coredns"),
    Target("helm", TOOLS, "helm.sh/helm/v4/cmd/helm"),
    Target("kwok", TOOLS, "sigs.k8s.io/kwok/cmd/kwok"),
    Target("istio-crds.yaml", ISTIO, "istio.io/api", files="kubernetes/customresourcedefinitions.gen.yaml"),
    Target(
        "gateway-api-crds.yaml",
        ISTIO,
        "sigs.k8s.io/gateway-api",
        files="config/crd/standard/gateway.networking.k8s.io_[!v]*.yaml",
    ),
    Target("pilot-discovery", ISTIO, "istio.io/istio/pilot/cmd/pilot-discovery"),
    Target("istioctl", ISTIO, "istio.io/istio/istioctl/cmd/istioctl"),
    Target("prometheus", PROMETHEUS, "github.com/prometheus/prometheus/cmd/prometheus"),
    Target("promtool", PROMETHEUS, "github.com/prometheus/prometheus/cmd/promtool"),
)
APISERVER_TIER = ("kube-apiserver",)
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
NODE_TIER = (*APISERVER_TIER, *CONTROLLERS, "kubelet", "kube-proxy", "pause", "probe", "coredns", "helm")
MESH = ("istio-crds.yaml", "gateway-api-crds.yaml", "pilot-discovery", "istioctl", "prometheus", "promtool")


@dataclass(frozen=True)
class Built:
    """What one `go build` made, and how long it took."""

    names: tuple[str, ...]
    seconds: float


def wanted(have_kubectl: bool) -> list[str]:
    """Every program that a machine needs: kubectl only where it has none."""
    return [target.name for target in TARGETS if target.name != "kubectl" or not have_kubectl]


def node_tier() -> list[str]:
    """The programs of the node tier: helm among them, because whoever starts a node installs a chart on it."""
    return [*NODE_TIER, *([] if shutil.which("kubectl") else ["kubectl"])]


def module_key(module: Module, sources: Path = SOURCES) -> str:
    """The digest that names a module's folder of binaries."""
    digest = hashlib.sha256((module.ldflags + module.tags).encode())
    directory = sources / module.name
    for path in sorted(p for p in directory.rglob("*") if p.name in ("go.mod", "go.sum") or p.suffix == ".go"):
        digest.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def build_command(module: Module, packages: Sequence[str], output: Path) -> list[str]:
    """The `go build` of some packages of one module; run it in the module's folder."""
    flags = ["-trimpath", "-buildvcs=false", "-modcacherw", _NO_DWARF, "-ldflags", module.ldflags, "-tags", module.tags]
    return ["go", "build", *flags, "-o", f"{output}/", *packages]


def build_environment(cache: Path) -> dict[str, str]:
    """Go's environment: static binaries, caches of our own, no workspace or flags of the user's."""
    go = cache / "go"
    ours = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", **_LAZY_COLLECTOR}
    return {**ours, "GOMODCACHE": str(go / "mod"), "GOCACHE": str(go / "build")}


def binary(name: str, cache: Path | None = None) -> Path:
    """Where a program is, or will be once it is built."""
    target = next(target for target in TARGETS if target.name == name)
    folder = f"{target.module.name}-{module_key(target.module)}"
    return (cache or cache_root()) / "bin" / folder / name


def kubectl() -> str:
    """The kubectl of the machine, or else ours."""
    return shutil.which("kubectl") or str(binary("kubectl"))


def missing(names: Iterable[str], cache: Path | None = None) -> list[Target]:
    """The targets among `names` that are not in the cache."""
    chosen = set(names)
    return [t for t in TARGETS if t.name in chosen and not binary(t.name, cache).exists()]


def ensure(names: Iterable[str], report: Callable[[str], None] = lambda _: None) -> list[Built]:
    """Build what is missing among `names`, one `go build` a module; return what was built and how long it took."""
    names = list(names)
    cache = cache_root()
    if not missing(names, cache):
        return []
    _require_go()
    results = []
    with locked(cache / "build.lock"):  # another session may be building the same: then we find its binaries
        todo = missing(names, cache)
        for module in MODULES:
            targets = [target for target in todo if target.module == module]
            if targets:
                report(f"building {', '.join(t.name for t in targets)}")
                results.append(_build(module, targets, cache))
        if not missing(wanted(have_kubectl=shutil.which("kubectl") is not None), cache):
            shutil.rmtree(cache / "go", ignore_errors=True)
    return results


def _build(module: Module, targets: Sequence[Target], cache: Path) -> Built:
    started = time.monotonic()
    names = tuple(target.name for target in targets)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as directory:
        output = Path(directory)
        if packages := [target.package for target in targets if not target.files]:
            _go(build_command(module, packages, output), module, cache)
        for target in targets:
            if target.files:
                source = _go(["go", "list", "-m", "-f", "{{.Dir}}", target.package], module, cache)
                documents = [path.read_text() for path in sorted(Path(source.strip()).glob(target.files))]
                (output / target.name).write_text("\n---\n".join(documents))
        for name in names:
            place = binary(name, cache)
            place.parent.mkdir(parents=True, exist_ok=True)
            (output / name).replace(place)
    return Built(names, time.monotonic() - started)


def _go(command: Sequence[str], module: Module, cache: Path) -> str:
    """Run Go in a module's folder; return what it printed."""
    environment = {**os.environ, **build_environment(cache)}
    done = subprocess.run(
        command, cwd=SOURCES / module.name, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n  ".join(done.stderr.strip().splitlines()[-15:])
        raise ClusterError(
            f"`{' '.join(command[:2])}` in {module.name} failed. When Go could not download a module, check that "
            f"GOPROXY is reachable, and run this again. Go said:\n  {tail}"
        )
    return done.stdout


def _require_go() -> None:
    if not shutil.which("go"):
        raise ClusterError("Go was not found: install Go 1.26 or newer, put it on PATH and run this again.")
