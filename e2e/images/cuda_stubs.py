"""Replace CUDA's shared libraries by stubs that answer "no device", for images that only ever run on a CPU.

PyPI's torch for Linux is linked against CUDA: without libcudart, libcublas, libcudnn and a dozen others `import torch`
fails, although a CPU never calls them. Together with triton they are 3.4 of an installed torch's 4.5 GB. This
script reads which functions torch's libraries import from which of them, and compiles small libraries of the same
names whose functions all return 100 (cudaErrorNoDevice, an error in each of these APIs). torch then reports
`torch.cuda.is_available() == False`, as it does on any machine without a GPU.

It needs gcc and readelf, runs in the build stage of the Dockerfiles when ACCELERATOR=cpu, and uses nothing but the
standard library:

    python3 cuda_stubs.py SITE_PACKAGES
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

NO_DEVICE = 100
"""cudaErrorNoDevice and CUDA_ERROR_NO_DEVICE; not the success code (0) of any library concerned."""

CUDA_LIBRARY = re.compile(r"^lib(cu[a-zA-Z]+|nccl|nvrtc|nvshmem_host|nvJitLink|nvToolsExt)\.so\.\d+$")
# The driver comes from the node, is opened on demand by torch, and its absence is handled there.
DRIVER = "libcuda.so.1"
UNVERSIONED = {"nccl": "libnccl", "cusparseLt": "libcusparseLt", "cuFile": "libcufile", "nvshmem": "libnvshmem_host"}
RETURNS_TEXT = re.compile(r"(GetErrorString|GetErrorName|GetStatusString|GetStatusName|ncclGetLastError)$")


@dataclass
class Stub:
    """One library to make: its functions by symbol version ("" for none)."""

    soname: str
    functions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def source(self) -> str:
        """Return the C source: one function that fails, one that explains, and their aliases."""
        lines = [
            f"static int no_device(void) {{ return {NO_DEVICE}; }}",
            'static const char *no_device_text(void) { return "this image is built for CPUs (ACCELERATOR=cpu)"; }',
        ]
        for name in sorted(set().union(*self.functions.values())):
            text = RETURNS_TEXT.search(name)
            kind, target = ("const char *", "no_device_text") if text else ("int ", "no_device")
            lines.append(f'{kind}{name}(void) __attribute__((alias("{target}")));')
        return "\n".join(lines) + "\n"

    def version_script(self) -> str:
        """Return the linker's version script, or an empty text when no function carries a version."""
        return "".join(
            f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};\n"
            for version, names in sorted(self.functions.items())
            if version
        )


def readelf(*arguments: str | Path) -> str:
    """Return readelf's output."""
    return subprocess.run(
        ["readelf", "--wide", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def wanted(dynamic: str, symbols: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Parse readelf's output into (CUDA libraries linked, undefined functions as (name, version))."""
    needed = {name for name in re.findall(r"Shared library: \[([^]]+)\]", dynamic) if CUDA_LIBRARY.match(name)}
    undefined = set()
    for line in symbols.splitlines():
        columns = line.split()
        if len(columns) > 7 and columns[6] == "UND":
            name, _, version = columns[7].partition("@")
            undefined.add((name, version))
    return needed - {DRIVER}, undefined


def home_of(name: str, version: str, libraries: set[str]) -> str | None:
    """Return which of the libraries has to define this function, None for a function that is not CUDA's."""
    if version in libraries:
        return version
    for prefix, library in UNVERSIONED.items():
        if name.startswith(prefix):
            return next((soname for soname in libraries if soname.startswith(library + ".")), None)
    return None


def plan_stubs(imports: list[tuple[set[str], set[tuple[str, str]]]]) -> list[Stub]:
    """Return the stubs that satisfy all imports, sorted by name."""
    libraries: set[str] = set().union(*(needed for needed, _ in imports))
    stubs = {soname: Stub(soname) for soname in libraries}
    for _, undefined in imports:
        for name, version in undefined:
            home = home_of(name, version, libraries)
            if home:
                stubs[home].functions[version].add(name)
    return [stubs[soname] for soname in sorted(stubs)]


def compile_stub(stub: Stub, folder: Path) -> None:
    """Compile one stub into the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text(stub.source())
        script.write_text(stub.version_script())
        command = ["gcc", "-shared", "-fPIC", "-O1", "-nostdlib", f"-Wl,-soname,{stub.soname}"]
        command += ["-o", str(folder / stub.soname), str(source)]
        if script.stat().st_size:
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def main(site_packages: Path) -> None:
    """Write the stubs next to torch's own libraries, where its run path looks."""
    folder = site_packages / "torch" / "lib"
    binaries = sorted(folder.glob("*.so")) + sorted(site_packages.glob("torch/_C*.so"))
    imports = [wanted(readelf("--dynamic", path), readelf("--dyn-syms", path)) for path in binaries]
    stubs = plan_stubs(imports)
    for stub in stubs:
        compile_stub(stub, folder)
    count = sum(len(names) for stub in stubs for names in stub.functions.values())
    print(f"wrote {len(stubs)} CUDA stubs with {count} functions to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
