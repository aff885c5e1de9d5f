"""Compile DeepSpeed's extensions async_io and pin_memory, with which it reads and writes an NVMe disk.

    python build_extensions.py TARGET      writes TARGET/deepspeed_extensions/*.so

DeepSpeed would compile them at the start of a run: with CUDA's toolkit, for the processor of that machine. Neither of
the two needs CUDA, and what an image holds has to run on every node. Needs g++ and libaio's header.
"""

import argparse
import os
import tempfile
from pathlib import Path

PACKAGE = "deepspeed_extensions"
LENIENT = """\
#include <cstddef>
extern "C" int __real_mlock(const void*, size_t);
extern "C" int __wrap_mlock(const void* start, size_t length)
{
    __real_mlock(start, length);
    return 0;
}
"""
"""A pod of Pod Security `restricted` may lock no memory, and without a locked buffer DeepSpeed dies. Direct reads and
writes need aligned pages; that they are locked as well keeps them from swap, which nodes of Kubernetes have not."""


def main() -> None:
    """Compile into the directory that the command line names."""
    parser = argparse.ArgumentParser(description="Compile DeepSpeed's extensions that read and write an NVMe disk.")
    parser.add_argument("target", type=Path, help="the package goes here; put it on sys.path")
    target = parser.parse_args().target.resolve()
    # The builders for CPUs name the same sources, and need no GPU to be asked.
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch.utils.cpp_extension as torch_extension
    from deepspeed.ops.op_builder.cpu import AsyncIOBuilder, PinMemoryBuilder
    from setuptools import setup

    with tempfile.TemporaryDirectory() as scratch:
        lenient = Path(scratch, "lenient.cpp")
        lenient.write_text(LENIENT)
        extensions = [
            torch_extension.CppExtension(
                f"{PACKAGE}.{builder.name}_op",
                [*(builder.deepspeed_src_path(path) for path in builder.sources()), str(lenient)],
                include_dirs=[builder.deepspeed_src_path(path) for path in builder.include_paths()],
                libraries=libraries,
                extra_compile_args=["-O1", "-g0", "-w"],
                # A library that lies beside the extension is found there.
                extra_link_args=["-s", "-Wl,-rpath,$ORIGIN", "-Wl,--wrap=mlock"],
            )
            for builder, libraries in ((PinMemoryBuilder(), []), (AsyncIOBuilder(), ["aio"]))
        ]
        setup(
            name=PACKAGE,
            ext_modules=extensions,
            cmdclass={"build_ext": torch_extension.BuildExtension.with_options(no_python_abi_suffix=True)},
            script_args=["--quiet", "build_ext", "--build-temp", scratch, "--build-lib", str(target)],
        )


if __name__ == "__main__":
    main()
