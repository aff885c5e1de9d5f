"""The images: keys, Dockerfiles, requirement files, archives and stubs. Nothing is built here."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from e2e.images import image_refs
from e2e.images.builder import base_layer, copy_from_context, machine_settings, merge_layers
from e2e.images.common import REPO, ImageBuildError
from e2e.images.cuda_stubs import Stub, plan_stubs, wanted
from e2e.images.dockerfile import Dockerfile, expand, logical_lines, parse
from e2e.images.lock import blocks, for_cpu, render
from e2e.images.oci import Image, store_json, store_layer, write_archive, write_layer_tar
from e2e.images.plan import Planner
from e2e.images.refs import DOCKERFILES, plan_image

NAMES = sorted(DOCKERFILES)
LOCKED = ["model", "operator", "server-cpu", "server-cuda", "tools", "torch-cpu", "torch-cuda", "trainer"]


def dockerfile(name: str) -> Dockerfile:
    return parse((REPO / DOCKERFILES[name]).read_text())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the images are made of, to change at will."""
    for folder in ("crds/tunewright_api", "operator", "trainer_image", "server_image", "requirements"):
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "LICENSE", "e2e/images/cuda_stubs.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / file, tmp_path / file)
    return tmp_path


class TestDockerfiles:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_image_runs_as_a_numeric_user_without_rights(self, name: str) -> None:
        assert plan_image(name).plan.user == "65532:65532"

    @pytest.mark.parametrize("name", NAMES)
    def test_the_entrypoint_is_the_console_script(self, name: str) -> None:
        assert plan_image(name).plan.entrypoint == (f"tunewright-{name}",)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_base_is_pinned_by_a_tag_that_is_not_latest(self, name: str) -> None:
        base = dockerfile(name).arguments["BASE_IMAGE"]
        assert ":" in base
        assert not base.endswith(":latest")

    @pytest.mark.parametrize("name", NAMES)
    def test_every_package_from_an_index_is_checked_against_its_hash(self, name: str) -> None:
        installs = [
            instruction.value
            for stage in dockerfile(name).stages
            for instruction in stage.instructions
            if instruction.keyword == "RUN" and "--requirement" in instruction.value
        ]
        assert len(installs) >= 2
        assert all("--require-hashes" in install for install in installs)

    @pytest.mark.parametrize("name", NAMES)
    def test_no_cache_and_no_secret_of_the_build_reaches_the_image(self, name: str) -> None:
        names = set(plan_image(name).plan.environment)
        assert not {variable for variable in names if variable.startswith(("PIP_", "UV_", "SSL_"))}

    def test_trainer_and_server_start_with_the_same_stages_and_share_the_torch_layer(self) -> None:
        trainer, server = dockerfile("trainer"), dockerfile("server")
        assert trainer.stages[:4] == server.stages[:4]
        layers = [{layer.key for layer in plan_image(name).plan.layers} for name in ("trainer", "server")]
        titles = [layer.title for layer in plan_image("trainer").plan.layers if layer.key in set.intersection(*layers)]
        assert "COPY --from=torch /layers/torch /opt/tunewright" in titles

    def test_an_unknown_instruction_is_refused(self) -> None:
        with pytest.raises(ImageBuildError, match="does not know VOLUME"):
            parse("FROM x\nVOLUME /data\n")

    def test_continued_lines_are_joined_and_comments_dropped(self) -> None:
        assert logical_lines("# c\nRUN a \\\n # inside\n  && b\n\nUSER 1\n") == ["RUN a   && b", "USER 1"]

    def test_unknown_variables_become_empty(self) -> None:
        assert expand("x-${A}-$B-$C", {"A": "1", "B": "2"}) == "x-1-2-"

    def test_the_accelerator_chooses_the_requirement_files(self, checkout: Path) -> None:
        parsed = parse((checkout / DOCKERFILES["server"]).read_text())
        sources = {}
        for accelerator in ("cpu", "cuda"):
            planner = Planner(parsed, checkout, base_layer(), {"ACCELERATOR": accelerator})
            planner.image()
            layers = planner.plans["dependencies"].layers + planner.plans["torch"].layers
            sources[accelerator] = {name for layer in layers for name in layer.sources}
        assert {"requirements/server-cpu.txt", "requirements/torch-cpu.txt"} <= sources["cpu"]
        assert {"requirements/server-cuda.txt", "requirements/torch-cuda.txt"} <= sources["cuda"]


class TestKeys:
    @pytest.mark.parametrize(
        ("changed", "affected"),
        [
            ("requirements/operator.txt", {"operator"}),
            ("requirements/trainer.txt", {"trainer"}),
            ("requirements/server-cpu.txt", {"server"}),
            ("requirements/torch-cpu.txt", {"trainer", "server"}),
            ("requirements/tools.txt", {"operator", "trainer", "server"}),
            ("requirements/server-cuda.txt", set()),
            ("crds/tunewright_api/__init__.py", {"operator", "trainer", "server"}),
            ("trainer_image/tunewright_trainer/__init__.py", {"trainer"}),
        ],
    )
    def test_a_changed_file_renames_exactly_the_images_made_from_it(
        self, checkout: Path, changed: str, affected: set[str]
    ) -> None:
        before = {name: plan_image(name, checkout).reference for name in NAMES}
        with (checkout / changed).open("a") as file:
            file.write("\n# changed\n")
        after = {name: plan_image(name, checkout).reference for name in NAMES}
        assert {name for name in NAMES if before[name] != after[name]} == affected

    def test_a_change_of_the_code_touches_one_layer_only(self, checkout: Path) -> None:
        before = plan_image("server", checkout).plan.layers
        (checkout / "server_image/tunewright_server/new.py").write_text("")
        after = plan_image("server", checkout).plan.layers
        assert [one.key == other.key for one, other in zip(before, after, strict=True)] == [True] * 7 + [False]

    def test_caches_of_python_do_not_count(self, checkout: Path) -> None:
        before = plan_image("operator", checkout).reference
        cache = checkout / "operator/tunewright_operator/__pycache__"
        cache.mkdir()
        (cache / "x.cpython-311.pyc").write_bytes(b"x")
        assert plan_image("operator", checkout).reference == before

    def test_a_missing_source_says_what_to_do(self, checkout: Path) -> None:
        shutil.rmtree(checkout / "operator/tunewright_operator")
        with pytest.raises(ImageBuildError, match="Write it first"):
            plan_image("operator", checkout)

    def test_references_are_names_that_a_manifest_can_hold(self) -> None:
        assert {name: reference.rpartition("-")[0] for name, reference in image_refs().items()} == {
            name: f"tunewright/{name}:dev" for name in NAMES
        }

    def test_the_settings_of_the_machine_are_handed_over_but_named_in_no_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = image_refs()
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
        assert image_refs() == before
        variables, _ = machine_settings({"PIP_INDEX_URL": "u", "HTTPS_PROXY": "p", "AWS_SECRET_ACCESS_KEY": "s"})
        assert variables == {"PIP_INDEX_URL": "u", "HTTPS_PROXY": "p"}


class TestRequirements:
    @pytest.mark.parametrize("name", LOCKED)
    def test_every_entry_is_pinned_and_hashed_and_no_index_is_named(self, name: str) -> None:
        text = (REPO / f"requirements/{name}.txt").read_text()
        entries = blocks(text)
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries.values())
        assert "://" not in text

    def test_torch_is_the_same_everywhere_and_in_no_other_file(self) -> None:
        read = {name: blocks((REPO / f"requirements/{name}.txt").read_text()) for name in LOCKED}
        assert read["torch-cpu"]["torch"] == read["torch-cuda"]["torch"]
        assert "torch==2.13.0" in read["torch-cpu"]["torch"]
        for name in ("trainer", "server-cpu", "server-cuda"):
            assert not set(read[name]) & set(read["torch-cuda"])

    @pytest.mark.parametrize("name", ["torch-cpu", "server-cpu", "trainer"])
    def test_a_cpu_image_holds_no_cuda_library(self, name: str) -> None:
        entries = blocks((REPO / f"requirements/{name}.txt").read_text())
        assert entries == for_cpu(entries)

    def test_compiled_files_survive_the_split(self) -> None:
        text = (
            "a==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n    # via b\nnvidia-x==2 \\\n    --hash=sha256:3\n"
        )
        assert render(for_cpu(blocks(text))).splitlines()[1:] == text.splitlines()[:3]


class TestArchives:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        root = tmp_path / "layer"
        (root / "opt").mkdir(parents=True)
        (root / "opt/b").write_text("two")
        (root / "opt/a").write_text("one")
        (root / "opt/same").hardlink_to(root / "opt/a")
        (root / "opt/link").symlink_to("a")
        return root

    def test_a_layer_has_the_same_bytes_whenever_it_is_written(self, folder: Path) -> None:
        archives = []
        for _ in range(2):
            stream = io.BytesIO()
            write_layer_tar(folder, stream)
            archives.append(stream.getvalue())
            (folder / "opt/a").touch()
        assert archives[0] == archives[1]
        with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
            assert archive.getnames() == ["opt", "opt/a", "opt/b", "opt/link", "opt/same"]
            assert archive.getmember("opt/same").islnk()
            assert archive.getmember("opt/link").linkname == "a"

    @pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
    def test_an_archive_names_its_images_and_leaves_out_what_the_receiver_has(
        self, folder: Path, tmp_path: Path
    ) -> None:
        layout = tmp_path / "oci"
        layer = store_layer(folder, layout)
        config, manifest = store_json({"c": 1}, layout), store_json({"m": 1}, layout)
        image = Image("docker.io/tunewright/x:dev-1", manifest, config, (layer,))
        names = {}
        for label, skip in {"all": frozenset[str](), "thin": frozenset({layer.digest})}.items():
            stream = io.BytesIO()
            write_archive([image], layout, stream, skip=skip)
            stream.seek(0)
            with tarfile.open(fileobj=stream) as archive:
                names[label] = set(archive.getnames())
                content = archive.extractfile("index.json")
                assert content is not None
                index = json.load(content)
        assert names["all"] - names["thin"] == {f"blobs/sha256/{layer.digest.removeprefix('sha256:')}"}
        assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == image.name

    def test_copy_follows_docker(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "__pycache__").mkdir(parents=True)
        (source / "m.py").write_text("")
        copy_from_context(source, tmp_path / "made/package", into_folder=True)
        copy_from_context(source / "m.py", tmp_path / "made", into_folder=True)
        made = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*")}
        assert made == {"m.py", "package", "package/m.py"}

    def test_upper_layers_win_and_nothing_is_copied(self, tmp_path: Path) -> None:
        lower, upper, target = tmp_path / "1", tmp_path / "2", tmp_path / "merged"
        for layer, text in ((lower, "old"), (upper, "new")):
            (layer / "layers/x").mkdir(parents=True)
            (layer / "layers/x/file").write_text(text)
        (lower / "layers/x/link").symlink_to("file")
        assert merge_layers([lower, upper], "/layers/x", target)
        assert (target / "file").read_text() == "new"
        assert (target / "file").stat().st_ino == (upper / "layers/x/file").stat().st_ino
        assert (target / "link").readlink() == Path("file")
        assert not merge_layers([lower], "/layers/y", target)


class TestCudaStubs:
    DYNAMIC = "(NEEDED) Shared library: [libcudart.so.13]\n(NEEDED) Shared library: [libnccl.so.2]\n[libc.so.6]\n"
    SYMBOLS = (
        "    12: 0000 0 FUNC GLOBAL DEFAULT UND cudaMalloc@libcudart.so.13 (3)\n"
        "    13: 0000 0 FUNC GLOBAL DEFAULT UND cudaGetErrorString@libcudart.so.13 (3)\n"
        "    14: 0000 0 FUNC GLOBAL DEFAULT UND ncclInit\n"
        "    15: 0000 0 FUNC GLOBAL DEFAULT UND printf@GLIBC_2.2.5 (4)\n"
        "    16: 0010 4 FUNC GLOBAL DEFAULT  12 defined_here\n"
    )

    def test_each_library_gets_the_functions_that_torch_imports_from_it(self) -> None:
        stubs = {stub.soname: stub for stub in plan_stubs([wanted(self.DYNAMIC, self.SYMBOLS)])}
        assert dict(stubs["libcudart.so.13"].functions) == {"libcudart.so.13": {"cudaMalloc", "cudaGetErrorString"}}
        assert dict(stubs["libnccl.so.2"].functions) == {"": {"ncclInit"}}
        assert stubs["libcudart.so.13"].version_script() == (
            "libcudart.so.13 { global: cudaGetErrorString; cudaMalloc; };\n"
        )
        assert stubs["libnccl.so.2"].version_script() == ""

    def test_functions_that_return_text_return_text(self) -> None:
        stub = Stub("libcudart.so.13")
        stub.functions["libcudart.so.13"] |= {"cudaMalloc", "cudaGetErrorString"}
        assert 'const char *cudaGetErrorString(void) __attribute__((alias("no_device_text")));' in stub.source()
        assert 'int cudaMalloc(void) __attribute__((alias("no_device")));' in stub.source()
